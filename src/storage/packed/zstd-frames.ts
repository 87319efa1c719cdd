/** The framing of zstd data (RFC 8878, 3.1): where each frame ends, and which checksum its content has to have. */

const frameMagic = 0xfd2fb528;
/** Sixteen values, of which the lowest four bits say nothing. */
const skippableMagic = 0x184d2a50;
const rleBlock = 1;
const dictionaryIdBytes = [0, 1, 2, 4] as const;
const contentSizeBytes = [0, 2, 4, 8] as const;

/** How far a frame was followed. */
export interface FrameStep {
  /** Bytes, of those that were given, that belong to the frame. */
  readonly length: number;
  /** Whether the frame ends with them. */
  readonly isEnd: boolean;
  /** At the end of a frame that has one: the lower half of the XXH64 of its content. */
  readonly checksum?: number;
}

/** What the next bytes are. */
type Part =
  | 'magic'
  | 'skippable size'
  | 'descriptor'
  | 'skipped'
  | 'header'
  | 'block header'
  | 'block'
  | 'checksum';

/** Follows frames, one after the other, through bytes that come in any pieces. */
export class ZstdFrames {
  #part: Part = 'magic';
  /** Bytes of the part that have not come yet. */
  #left = 4;
  /** Those that have, of a part that says something: its bytes, the first one lowest. */
  #value = 0;
  #shift = 0;
  #hasChecksum = false;
  #isLastBlock = false;

  /** Follows a frame through the next bytes, and no further than to its end. */
  follow(bytes: Uint8Array): FrameStep {
    for (let at = 0; ;) {
      const count = Math.min(this.#left, bytes.length - at);
      if (this.#isRead) this.#gather(bytes.subarray(at, at + count));
      at += count;
      this.#left -= count;
      if (this.#left > 0) return { length: at, isEnd: false };
      const value = this.#value >>> 0;
      const ended = this.#part;
      if (this.#next(value)) {
        const isChecked = ended === 'checksum';
        return { length: at, isEnd: true, ...(isChecked && { checksum: value }) };
      }
    }
  }

  /** Whether what the part's bytes are matters, rather than how many they are. */
  get #isRead(): boolean {
    return this.#part !== 'skipped' && this.#part !== 'header' && this.#part !== 'block';
  }

  #gather(bytes: Uint8Array): void {
    for (const byte of bytes) {
      this.#value |= byte << this.#shift;
      this.#shift += 8;
    }
  }

  #expect(part: Part, length: number): void {
    this.#part = part;
    this.#left = length;
    this.#value = 0;
    this.#shift = 0;
  }

  /** Goes on behind a part that has come. @returns whether the frame ends with it */
  #next(value: number): boolean {
    switch (this.#part) {
      case 'magic':
        if ((value & ~0xf) >>> 0 === skippableMagic) this.#expect('skippable size', 4);
        else if (value === frameMagic) this.#expect('descriptor', 1);
        else throw new Error('there is no frame where one has to begin');
        return false;
      case 'skippable size':
        this.#expect('skipped', value);
        return false;
      case 'descriptor':
        this.#hasChecksum = (value & 4) !== 0;
        this.#expect('header', headerBytes(value));
        return false;
      case 'header':
        this.#expect('block header', 3);
        return false;
      case 'block header':
        this.#isLastBlock = (value & 1) !== 0;
        this.#expect('block', ((value >> 1) & 3) === rleBlock ? 1 : value >>> 3);
        return false;
      case 'block':
        if (!this.#isLastBlock) this.#expect('block header', 3);
        else if (this.#hasChecksum) this.#expect('checksum', 4);
        else return this.#end();
        return false;
      default:
        return this.#end();
    }
  }

  #end(): true {
    this.#expect('magic', 4);
    return true;
  }
}

/** Bytes of a frame's header after its descriptor. */
function headerBytes(descriptor: number): number {
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >>> 6;
  const windowBytes = isSingleSegment ? 0 : 1;
  const sizeBytes = sizeFlag === 0 && isSingleSegment ? 1 : contentSizeBytes[sizeFlag];
  return windowBytes + dictionaryIdBytes[descriptor & 3] + sizeBytes;
}
