/**
 * The filter `readahead`: reads that follow one another are answered from blocks that were read before they
 * were asked for, which hides how long a storage takes to answer. A change through any queue of any thread
 * makes what was read ahead void; changes by other programs are not seen until it is used up.
 */
import type { Completion, StorageFile } from '../storage.js';
import { type Filter, type FilterUse, size } from './filter.js';
import { FilterFile, type OperationKind, type StorageOperation } from './filter-file.js';

const mib = 1024 * 1024;
const options = {
  /** Bytes of memory for each queue that reads; default 4 MiB. */
  window: size('bytes of memory for each queue that reads; default 4M', 65_536, 1024 * mib),
};
interface Options {
  readonly window?: number | undefined;
}

/** Shared words: changes that have begun, and those that have ended. */
const begun = 0;
const ended = 1;

/** Operations after which bytes may be others. */
const changes: readonly OperationKind[] = [
  'write',
  'writeZeroes',
  'discard',
  'truncate',
  'allocate',
  'copyFrom',
];

/** So many places are remembered where reads have ended: so many readers may take turns. */
const rememberedEnds = 8;

/** A part of the file, read ahead. */
interface Block {
  readonly bytes: Uint8Array;
  /** Whether it could be read. */
  readonly read: Promise<boolean>;
}

/** See the file's comment. */
export const readaheadFilter: Filter<'readahead', typeof options, never> = {
  name: 'readahead',
  help: 'reads what follows before it is asked for, where reads follow one another',
  options,
  required: [],
  words: 2,
  wrap: (inner, use) => new ReadaheadFile(inner, use),
};

class ReadaheadFile extends FilterFile {
  readonly #use: FilterUse<Options>;
  readonly #blockBytes: number;
  readonly #mostBlocks: number;
  /** By number, in the order in which they were begun. */
  readonly #blocks = new Map<number, Block>();
  /** Changes that had begun when the blocks were. */
  #generation = 0;
  /** Length of the file in bytes, of this generation; undefined as long as nobody has asked. */
  #length: number | undefined;
  /** Reads ahead under way, also of blocks that nobody wants any more. */
  #underWay = 0;
  /** Where reads have ended, and whether they had begun where another ended: then a reader is on its way. */
  readonly #ends: { readonly at: number; readonly isOnItsWay: boolean }[] = [];

  constructor(inner: StorageFile, use: FilterUse<Options>) {
    super(inner, use);
    this.#use = use;
    const { window = 4 * mib } = use.options;
    this.#blockBytes = Math.min(mib, Math.floor(window / 8 / 4096) * 4096);
    this.#mostBlocks = Math.floor(window / this.#blockBytes);
  }

  openQueue(): ReadaheadFile {
    return new ReadaheadFile(this.inner.openQueue(), this.#use);
  }

  override submitRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    const blocks = this.#blocksFor(offset, buffer.byteLength);
    if (blocks === undefined) {
      super.submitRead(buffer, offset, completion);
      return;
    }
    const submitted = this.#answer(blocks, [buffer], offset).then(
      (isAnswered) =>
        new Promise<void>((resolve) => {
          // In a turn of its own: what the completion throws is no rejection of this promise.
          process.nextTick(() => {
            resolve();
            if (isAnswered) completion.complete(null);
            else super.submitRead(buffer, offset, completion);
          });
        }),
    );
    void this.hold(submitted);
  }

  override async readVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    let length = 0;
    for (const buffer of buffers) length += buffer.byteLength;
    const blocks = this.#blocksFor(offset, length);
    if (blocks !== undefined && (await this.hold(this.#answer(blocks, buffers, offset)))) return;
    await super.readVector(buffers, offset);
  }

  protected intercept({ kind }: StorageOperation): undefined {
    if (changes.includes(kind)) Atomics.add(this.#use.words, begun, 1);
  }

  protected override settled({ kind }: StorageOperation): void {
    if (changes.includes(kind)) Atomics.add(this.#use.words, ended, 1);
  }

  /** The blocks that hold a range, if they are there, after reading further ahead where that is due. */
  #blocksFor(offset: number, length: number): readonly Block[] | undefined {
    const isRange =
      Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(offset + length);
    if (this.isClosing || !isRange || length === 0) return undefined;
    const isNext = this.#noteEnd(offset, offset + length);
    if (!this.#isCurrent()) return undefined;
    const bytes = this.#blockBytes;
    const first = Math.floor(offset / bytes);
    const last = Math.floor((offset + length - 1) / bytes);
    if (last - first + 1 > this.#mostBlocks / 2) return undefined;
    if (isNext) {
      // Those who read in sequence share the window.
      const readers = this.#ends.filter(({ isOnItsWay }) => isOnItsWay).length;
      this.#readThrough(
        first,
        Math.max(last + 1, first + Math.floor(this.#mostBlocks / readers) - 1),
      );
    }
    const blocks: Block[] = [];
    for (let index = first; index <= last; index++) {
      const block = this.#blocks.get(index);
      if (block === undefined) return undefined;
      blocks.push(block);
    }
    // What lies before the end of this read is not asked for again.
    const next = Math.floor((offset + length) / bytes);
    for (let index = first; index < next; index++) this.#blocks.delete(index);
    return blocks;
  }

  /** Notes where a read ends. @returns whether it began where another has ended */
  #noteEnd(start: number, end: number): boolean {
    const index = this.#ends.findIndex(({ at }) => at === start);
    const isOnItsWay = index !== -1;
    if (isOnItsWay) this.#ends.splice(index, 1);
    this.#ends.push({ at: end, isOnItsWay });
    if (this.#ends.length > rememberedEnds) this.#ends.shift();
    return isOnItsWay;
  }

  /** Whether no change is under way; forgets what was read before one. */
  #isCurrent(): boolean {
    const { words } = this.#use;
    const hasEnded = Atomics.load(words, ended);
    const hasBegun = Atomics.load(words, begun);
    if (hasBegun !== this.#generation) {
      this.#generation = hasBegun;
      this.#blocks.clear();
      this.#length = undefined;
    }
    return hasBegun === hasEnded;
  }

  /** Begins to read the blocks of a range that are not there, as far as there is room. */
  #readThrough(first: number, last: number): void {
    const length = this.#length;
    if (length === undefined) {
      this.#askLength();
      return;
    }
    for (let index = first; index <= last && index * this.#blockBytes < length; index++) {
      if (this.#blocks.has(index)) continue;
      if (this.#underWay >= this.#mostBlocks) return;
      if (this.#blocks.size >= this.#mostBlocks) {
        const [oldest] = this.#blocks.keys();
        if (oldest >= first && oldest <= last) return;
        this.#blocks.delete(oldest);
      }
      const bytes = new Uint8Array(this.#blockBytes);
      const read = this.#ahead(this.inner.read(bytes, index * this.#blockBytes));
      this.#blocks.set(index, { bytes, read });
    }
  }

  #askLength(): void {
    const generation = this.#generation;
    const asked = this.inner.size().then((length) => {
      if (generation === this.#generation) this.#length = length;
    });
    void this.#ahead(asked);
  }

  /** Work that nobody waits for but `close`. @returns whether it succeeded */
  #ahead(work: Promise<void>): Promise<boolean> {
    this.#underWay += 1;
    return this.hold(
      work
        .then(
          () => true,
          // Who asks for these bytes reads them again, and meets what is wrong.
          () => false,
        )
        .finally(() => {
          this.#underWay -= 1;
        }),
    );
  }

  /** Fills buffers from blocks, once these are read. @returns false if one could not be */
  async #answer(
    blocks: readonly Block[],
    buffers: readonly Uint8Array[],
    offset: number,
  ): Promise<boolean> {
    const all = await Promise.all(blocks.map(({ read }) => read));
    if (all.includes(false)) return false;
    const start = Math.floor(offset / this.#blockBytes) * this.#blockBytes;
    let at = offset - start;
    for (const buffer of buffers) {
      for (let filled = 0; filled < buffer.byteLength;) {
        const within = at % this.#blockBytes;
        const { bytes } = blocks[Math.floor(at / this.#blockBytes)];
        const part = bytes.subarray(within, within + buffer.byteLength - filled);
        buffer.set(part, filled);
        filled += part.length;
        at += part.length;
      }
    }
    return true;
  }
}
