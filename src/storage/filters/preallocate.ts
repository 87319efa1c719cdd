/**
 * The filter `preallocate`: a file that is written beyond its end grows by much at once, by QEMU's options and rules.
 * What was not used is cut off when the file is closed.
 */
import type { StorageFile } from '../storage.js';
import { type Filter, size } from './filter.js';
import { FilterFile, type Interception, type StorageOperation } from './filter-file.js';

const sectorBytes = 512;
const defaultAlign = 1024 * 1024;
const defaultSize = 128 * 1024 * 1024;

const options = {
  /** Bytes, of whole sectors, of which the file then has a multiple; default 1 MiB. */
  preallocAlign: size('bytes of which the file has a multiple; default 1M', sectorBytes),
  /** Bytes that are reserved beyond what is written; default 128 MiB. */
  preallocSize: size('bytes reserved beyond what is written; default 128M', 0),
};

/** See the file's comment. */
export const preallocateFilter: Filter<'preallocate', typeof options, never> = {
  name: 'preallocate',
  help: 'has a file that is written beyond its end grow by much at once, as in QEMU',
  options,
  required: [],
  words: 0,
  problem({ preallocAlign = defaultAlign }, spell) {
    if (preallocAlign % sectorBytes === 0) return undefined;
    return `${spell('preallocAlign')} is not aligned to ${sectorBytes}`;
  },
  wrap(inner, { options: { preallocAlign = defaultAlign, preallocSize = defaultSize } }) {
    return new PreallocatedFile(inner, new Ends(inner, preallocAlign, preallocSize));
  },
};

/** Where a file ends, for who uses it and on the host; all queues share it. */
class Ends {
  users = 0;
  /** Behind the last byte that was written, or that the file has been given. */
  data = 0;
  /** Behind the last byte that was reserved; what lies from `data` on reads as zeroes. */
  file = 0;
  readonly #inner: StorageFile;
  readonly #align: number;
  readonly #extra: number;
  #known: Promise<void> | undefined;
  #growing: Promise<void> | undefined;

  constructor(inner: StorageFile, align: number, extra: number) {
    this.#inner = inner;
    this.#align = align;
    this.#extra = extra;
  }

  /** Asks the host once. */
  know(): Promise<void> {
    this.#known ??= this.#inner.size().then((bytes) => {
      this.data = bytes;
      this.file = bytes;
    });
    return this.#known;
  }

  /** Reserves what a write up to `end` needs, and more. What cannot be reserved is no failure. */
  async reserveTo(end: number): Promise<void> {
    await this.know();
    while (end > this.file && this.#growing !== undefined) await this.#growing;
    if (end > this.file) {
      const target = Math.ceil((end + this.#extra) / this.#align) * this.#align;
      this.#growing = this.#inner
        .allocate(this.file, target - this.file, 'falloc')
        .then(
          () => {
            this.file = target;
          },
          () => {
            this.file = end;
          },
        )
        .finally(() => {
          this.#growing = undefined;
        });
      await this.#growing;
    }
    this.data = Math.max(this.data, end);
  }
}

/** It is one thread's: `handle` gives none, since what is cut off at the end must be nobody's. */
class PreallocatedFile extends FilterFile {
  readonly #ends: Ends;

  constructor(inner: StorageFile, ends: Ends) {
    super(inner);
    this.#ends = ends;
    ends.users += 1;
  }

  override get isNamed(): boolean {
    return true;
  }

  openQueue(): PreallocatedFile {
    return new PreallocatedFile(this.inner.openQueue(), this.#ends);
  }

  override async size(): Promise<number> {
    await this.#ends.know();
    return this.#ends.data;
  }

  override async truncate(bytes: number, reserve?: boolean): Promise<void> {
    const ends = this.#ends;
    await ends.know();
    // What was reserved reads as zeroes, as what a file grows by does.
    if (bytes < ends.data || bytes > ends.file) {
      await super.truncate(bytes, reserve);
      ends.file = bytes;
    }
    ends.data = bytes;
  }

  override async close(): Promise<void> {
    const ends = this.#ends;
    ends.users -= 1;
    if (ends.users === 0 && ends.file > ends.data && !this.readOnly) {
      try {
        await this.inner.truncate(ends.data);
      } catch (error) {
        await super.close().catch(() => undefined);
        throw error;
      }
    }
    await super.close();
  }

  protected intercept({ kind, offset, length }: StorageOperation): Interception {
    if (kind !== 'write' && kind !== 'writeZeroes' && kind !== 'copyFrom' && kind !== 'allocate') {
      return undefined;
    }
    const ends = this.#ends;
    const end = offset + length;
    // What is wrong is refused below.
    if (length === 0 || end <= ends.data || !Number.isSafeInteger(end)) return undefined;
    return ends.reserveTo(end).then(() => undefined);
  }
}
