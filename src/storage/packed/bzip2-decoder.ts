/**
 * Unpacking bzip2, any number of streams one after the other, in memory that is bounded whatever they say: a
 * block's bytes, the packed ones of a block, and a piece of what comes out.
 */
import { BitReader, Bzip2Error } from './bzip2-bits.js';
import { type Bzip2Block, readBlock, unsortBlock } from './bzip2-block.js';

const streamMagic = 0x425a68;
/** Bytes of a block for each level from 1 to 9. */
const levelBytes = 100_000;
/** Half of the number that begins a block, and the end of a stream: digits of π and of its root. */
const blockMagic = [0x314159, 0x265359];
const endMagic = [0x177245, 0x385090];
/** Packed bytes of a block at most: 32,767 groups of 50 symbols of 20 bits, and what is before them. */
const maxPackedBytes = (32_767 * 50 * 20) / 8 + 32 * 1024;

/** See the file's comment. */
export class Bzip2Decoder {
  /** Packed bytes that were given and not unpacked. */
  #packed: Uint8Array = new Uint8Array(0);
  #bits = new BitReader(this.#packed);
  #room = new Int32Array(0);
  /** Bytes of a block of the stream that has begun; 0 between streams. */
  #blockBytes = 0;
  #checksum = 0;

  /**
   * Takes packed bytes, and unpacks the blocks that are complete.
   *
   * @param isLast whether no more come
   * @throws Bzip2Error
   */
  *push(bytes: Uint8Array, isLast: boolean): Generator<Uint8Array> {
    this.#append(bytes);
    for (;;) {
      if (!isLast && this.#packed.length - this.#bits.position / 8 < this.#wantedBytes()) return;
      const isAtEnd = this.#bits.position === this.#packed.length * 8;
      if (isAtEnd && this.#blockBytes === 0) return;
      const block = this.#next();
      if (block !== undefined) yield* unsortBlock(block);
    }
  }

  /** What the next step takes at most; what is missing later is missing at the end. */
  #wantedBytes(): number {
    return this.#blockBytes === 0 ? 4 : maxPackedBytes;
  }

  #append(bytes: Uint8Array): void {
    const done = Math.floor(this.#bits.position / 8);
    const bit = this.#bits.position % 8;
    const rest = this.#packed.subarray(done);
    this.#packed = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
    this.#bits = new BitReader(this.#packed);
    this.#bits.take(bit);
  }

  /** The begin of a stream, its next block, or its end. */
  #next(): Bzip2Block | undefined {
    try {
      if (this.#blockBytes > 0) {
        const block = this.#blockOrEnd();
        if (!this.#bits.isOverrun) return block;
      } else {
        this.#begin();
        if (!this.#bits.isOverrun) return undefined;
      }
    } catch (error) {
      if (!this.#bits.isOverrun) throw error;
    }
    throw new Bzip2Error('it is cut off');
  }

  #begin(): void {
    if (this.#bits.take(24) !== streamMagic) throw new Bzip2Error('no stream begins there');
    const level = this.#bits.take(8) - '0'.charCodeAt(0);
    if (level < 1 || level > 9) throw new Bzip2Error('blocks of an unknown size');
    this.#blockBytes = level * levelBytes;
    if (this.#room.length < this.#blockBytes) this.#room = new Int32Array(this.#blockBytes);
    this.#checksum = 0;
  }

  #blockOrEnd(): Bzip2Block | undefined {
    const bits = this.#bits;
    const magic = [bits.take(24), bits.take(24)];
    const isMagic = (wanted: readonly number[]): boolean =>
      magic[0] === wanted[0] && magic[1] === wanted[1];
    if (isMagic(blockMagic)) {
      const block = readBlock(bits, this.#room.subarray(0, this.#blockBytes));
      this.#checksum = ((this.#checksum << 1) | (this.#checksum >>> 31)) ^ block.checksum;
      return block;
    }
    if (!isMagic(endMagic)) throw new Bzip2Error('neither a block nor the end');
    const checksum = (bits.take(16) << 16) | bits.take(16);
    if (checksum !== this.#checksum) throw new Bzip2Error('a checksum that does not match');
    bits.align();
    this.#blockBytes = 0;
    return undefined;
  }
}
