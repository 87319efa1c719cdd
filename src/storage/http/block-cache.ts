/**
 * Blocks of a remote file that are remembered for a while, and read ahead where reads follow one another:
 * the further ahead, the longer they do. What is missing side by side is asked for at once.
 */

/** Bytes of a block. */
const blockBytes = 64 * 1024;
/** Blocks that are remembered: 32 MiB. */
const mostBlocks = 512;
/** Bytes that are asked for at once at most. */
const requestBytes = 1024 * 1024;

/** Reads bytes of the file, all of which lie within it. */
export type ReadRange = (into: Uint8Array, offset: number) => Promise<void>;

/** See the file's comment. */
export class BlockCache {
  readonly #read: ReadRange;
  readonly #size: number;
  readonly #mostAhead: number;
  /** By number, the one used longest ago first. */
  readonly #blocks = new Map<number, Promise<Uint8Array>>();
  /** Where the read before ended, and how far reads have followed one another, in bytes. */
  #end = 0;
  #run = 0;

  /**
   * @param size of the file, in bytes
   * @param begin its first bytes, which are known already
   * @param mostAhead bytes that are read ahead at most
   */
  constructor(read: ReadRange, size: number, begin: Uint8Array, mostAhead: number) {
    this.#read = read;
    this.#size = size;
    this.#mostAhead = mostAhead;
    for (let at = 0; at < begin.length; at += blockBytes) {
      const block = begin.subarray(at, at + blockBytes);
      const isWhole = block.length === blockBytes || at + block.length === size;
      if (isWhole) this.#blocks.set(at / blockBytes, Promise.resolve(block));
    }
  }

  /** Fills the buffer; what lies beyond the file's end is zeroes. */
  async read(buffer: Uint8Array, offset: number): Promise<void> {
    const length = Math.max(0, Math.min(buffer.length, this.#size - offset));
    buffer.fill(0, length);
    if (length === 0) return;
    const end = offset + length;
    const ahead = this.#ahead(offset, end);
    const first = Math.floor(offset / blockBytes);
    const last = Math.floor((end - 1) / blockBytes);
    const isLarge = length >= requestBytes;
    if (isLarge && !this.#knowsAny(first, last)) {
      // Too much to be worth remembering: it goes where it is wanted.
      await this.#readInPieces(buffer.subarray(0, length), offset);
      return;
    }
    this.#load(first, last);
    this.#loadAhead(last + 1, ahead);
    // All are there from here on, or on their way, whatever is forgotten meanwhile.
    const blocks = Array.from({ length: last - first + 1 }, (_, index) =>
      this.#touch(first + index),
    );
    for (const [index, loading] of blocks.entries()) {
      const block = await loading;
      const blockAt = (first + index) * blockBytes;
      const from = Math.max(0, offset - blockAt);
      const to = Math.min(block.length, end - blockAt);
      buffer.set(block.subarray(from, to), blockAt + from - offset);
    }
  }

  /** Bytes to read ahead of a read: as many as were read one after the other before it. */
  #ahead(offset: number, end: number): number {
    const follows = Math.abs(offset - this.#end) <= blockBytes;
    this.#run = follows ? this.#run + (end - offset) : 0;
    this.#end = end;
    return this.#run < blockBytes ? 0 : Math.min(this.#run, this.#mostAhead);
  }

  #knowsAny(first: number, last: number): boolean {
    for (let block = first; block <= last; block++) if (this.#blocks.has(block)) return true;
    return false;
  }

  async #readInPieces(buffer: Uint8Array, offset: number): Promise<void> {
    const pieces: Promise<void>[] = [];
    for (let at = 0; at < buffer.length; at += requestBytes) {
      pieces.push(this.#read(buffer.subarray(at, at + requestBytes), offset + at));
    }
    await Promise.allSettled(pieces);
    await Promise.all(pieces);
  }

  /** Begins to read the blocks of a range that are missing. */
  #load(first: number, last: number): void {
    for (let block = first; block <= last; block++) {
      if (this.#blocks.has(block)) continue;
      let count = 1;
      const most = Math.min(last - block + 1, requestBytes / blockBytes);
      while (count < most && !this.#blocks.has(block + count)) count++;
      this.#request(block, count);
      block += count - 1;
    }
  }

  /** Reads ahead once less than half of what is wanted is there, so that requests are large. */
  #loadAhead(first: number, ahead: number): void {
    const lastOfAll = Math.ceil(this.#size / blockBytes) - 1;
    const last = Math.min(lastOfAll, first - 1 + Math.floor(ahead / blockBytes));
    let missing = first;
    while (missing <= last && this.#blocks.has(missing)) missing++;
    if ((missing - first) * blockBytes <= ahead / 2) this.#load(missing, last);
  }

  #request(block: number, count: number): void {
    const start = block * blockBytes;
    const bytes = new Uint8Array(Math.min(count * blockBytes, this.#size - start));
    const reading = this.#read(bytes, start);
    for (let index = 0; index < count; index++) {
      const own = bytes.subarray(index * blockBytes, (index + 1) * blockBytes);
      const loading = reading.then(() => own);
      this.#blocks.set(block + index, loading);
      // Whoever waits for it hears of it; the next one tries again.
      loading.catch(() => {
        if (this.#blocks.get(block + index) === loading) this.#blocks.delete(block + index);
      });
    }
    for (const oldest of this.#blocks.keys()) {
      if (this.#blocks.size <= mostBlocks) break;
      this.#blocks.delete(oldest);
    }
  }

  #touch(block: number): Promise<Uint8Array> {
    let loading = this.#blocks.get(block);
    if (loading === undefined) {
      this.#request(block, 1);
      loading = this.#blocks.get(block)!;
    }
    this.#blocks.delete(block);
    this.#blocks.set(block, loading);
    return loading;
  }
}
