/** A sparse file in memory: for tests, small images, and whoever wants no file. */
import { BaseFile } from '../base-file.js';
import type {
  AllocateMode,
  Completion,
  StorageFile,
  StorageLimits,
  StorageStatus,
} from '../storage.js';

/** Runs a piece of work some time after the call returns, in whatever order it likes. */
export type Schedule = (work: () => void) => void;

/** How a memory file is made. */
export interface MemoryFileOptions {
  readonly readOnly?: boolean;
  /** Bytes to begin with, shared with whoever else holds them; empty by default. */
  readonly content?: MemoryContent;
  /**
   * When each operation takes effect and completes; the next tick by default. A test that orders
   * these calls by a seed replays a run.
   */
  readonly schedule?: Schedule;
}

const pageBytes = 65536;

/** The bytes of a memory file. Pages that were never written, or were discarded, are holes. */
export class MemoryContent {
  readonly #pages = new Map<number, Uint8Array>();
  #size = 0;

  /** Length in bytes. */
  get size(): number {
    return this.#size;
  }

  /** Bytes of the pages that are not holes. */
  get allocatedSize(): number {
    return this.#pages.size * pageBytes;
  }

  /** An independent copy. */
  clone(): MemoryContent {
    const copy = new MemoryContent();
    for (const [page, bytes] of this.#pages) copy.#pages.set(page, bytes.slice());
    copy.#size = this.#size;
    return copy;
  }

  read(buffer: Uint8Array, offset: number): void {
    forEachPage(offset, buffer.byteLength, (page, start, length, done) => {
      const part = buffer.subarray(done, done + length);
      const bytes = this.#pages.get(page);
      if (bytes === undefined) part.fill(0);
      else part.set(bytes.subarray(start, start + length));
    });
  }

  write(buffer: Uint8Array, offset: number): void {
    forEachPage(offset, buffer.byteLength, (page, start, length, done) => {
      this.#pageForWriting(page).set(buffer.subarray(done, done + length), start);
    });
    if (buffer.byteLength > 0) this.extend(offset + buffer.byteLength);
  }

  truncate(size: number): void {
    // By the pages there are: the file may be far longer than what was ever written to it.
    for (const [page, bytes] of size < this.#size ? this.#pages : []) {
      const start = page * pageBytes;
      if (start >= size) this.#pages.delete(page);
      else if (start + pageBytes > size) bytes.fill(0, size - start);
    }
    this.#size = size;
  }

  /** Grows the file to at least this length. */
  extend(size: number): void {
    this.#size = Math.max(this.#size, size);
  }

  /** Makes a range read as zeroes without growing the file. */
  punch(offset: number, length: number): void {
    const end = Math.min(offset + length, this.#size);
    forEachPage(offset, Math.max(0, end - offset), (page, start, part) => {
      if (part === pageBytes || (start === 0 && offset + length >= this.#size)) {
        this.#pages.delete(page);
      } else {
        this.#pages.get(page)?.fill(0, start, start + part);
      }
    });
  }

  status(offset: number, length: number): StorageStatus {
    const first = Math.floor(offset / pageBytes);
    if (offset >= this.#size) return { data: false, length };
    const data = this.#pages.has(first);
    let page = first + 1;
    while (page * pageBytes < offset + length && this.#pages.has(page) === data) page += 1;
    return { data, length: Math.min(length, page * pageBytes - offset) };
  }

  #pageForWriting(page: number): Uint8Array {
    let bytes = this.#pages.get(page);
    if (bytes === undefined) {
      bytes = new Uint8Array(pageBytes);
      this.#pages.set(page, bytes);
    }
    return bytes;
  }
}

/** Calls `visit(page, start in the page, length, bytes before)` for each page that a range meets. */
function forEachPage(
  offset: number,
  length: number,
  visit: (page: number, start: number, length: number, done: number) => void,
): void {
  let done = 0;
  while (done < length) {
    const page = Math.floor((offset + done) / pageBytes);
    const start = offset + done - page * pageBytes;
    const part = Math.min(length - done, pageBytes - start);
    visit(page, start, part, done);
    done += part;
  }
}

/** See the file's comment. Queues opened from one file share its content. */
export class MemoryFile extends BaseFile {
  readonly protocol = 'memory';
  readonly limits: StorageLimits = {
    requestAlignment: 1,
    zeroInit: true,
    detectsHoles: true,
    blockDevice: false,
  };
  readonly content: MemoryContent;
  readonly #schedule: Schedule;

  /** @param filename what messages call it; nothing is opened */
  constructor(filename = 'memory', options: MemoryFileOptions = {}) {
    super(filename, options.readOnly ?? false);
    this.content = options.content ?? new MemoryContent();
    this.#schedule =
      options.schedule ??
      ((work) => {
        process.nextTick(work);
      });
  }

  openQueue(): MemoryFile {
    return new MemoryFile(this.filename, {
      readOnly: this.readOnly,
      content: this.content,
      schedule: this.#schedule,
    });
  }

  size(): Promise<number> {
    return this.#later(() => this.content.size);
  }

  allocatedSize(): Promise<number> {
    return this.#later(() => this.content.allocatedSize);
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.#schedule(() => {
      this.content.read(buffer, offset);
      this.end();
      completion.complete(null);
    });
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.#schedule(() => {
      this.content.write(buffer, offset);
      this.end();
      completion.complete(null);
    });
  }

  protected doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    return this.#later(() => {
      let at = offset;
      for (const buffer of buffers) {
        this.content.read(buffer, at);
        at += buffer.byteLength;
      }
    });
  }

  protected doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    return this.#later(() => {
      let at = offset;
      for (const buffer of buffers) {
        this.content.write(buffer, at);
        at += buffer.byteLength;
      }
    });
  }

  protected doFlush(): Promise<void> {
    return this.#later(() => undefined);
  }

  protected doTruncate(size: number): Promise<void> {
    return this.#later(() => {
      this.content.truncate(size);
    });
  }

  protected doAllocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    return this.#later(() => {
      if (mode === 'full') this.content.write(new Uint8Array(length), offset);
      else if (mode === 'falloc') this.content.extend(offset + length);
    });
  }

  protected doWriteZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    return this.#later(() => {
      this.content.extend(offset + length);
      if (unmap) this.content.punch(offset, length);
      else this.content.write(new Uint8Array(length), offset);
    });
  }

  protected doDiscard(offset: number, length: number): Promise<boolean> {
    return this.#later(() => {
      this.content.punch(offset, length);
      return true;
    });
  }

  protected doStatus(offset: number, length: number): Promise<StorageStatus> {
    return this.#later(() => this.content.status(offset, length));
  }

  protected doCopyFrom(
    source: StorageFile,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<boolean> {
    if (!(source instanceof MemoryFile)) return Promise.resolve(false);
    return this.#later(() => {
      const bytes = new Uint8Array(length);
      source.content.read(bytes, sourceOffset);
      this.content.write(bytes, offset);
      return true;
    });
  }

  protected doClose(): Promise<void> {
    return this.#later(() => undefined);
  }

  #later<Result>(work: () => Result): Promise<Result> {
    return new Promise((resolve) => {
      this.#schedule(() => {
        resolve(work());
      });
    });
  }
}
