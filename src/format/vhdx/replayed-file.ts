/** A file as it is once its log has been replayed, which it is not: for reading alone. */
import { FilterFile } from '../../storage/filters/filter-file.js';
import type { Completion, StorageFile } from '../../storage/storage.js';
import { type ReplayedRanges, bytesOfRange, firstRangeAfter } from './replayed-ranges.js';

/** See the file's comment. */
export class ReplayedFile extends FilterFile {
  readonly #ranges: ReplayedRanges;

  constructor(file: StorageFile, ranges: ReplayedRanges) {
    super(file);
    this.#ranges = ranges;
  }

  override submitRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.inner.submitRead(buffer, offset, {
      complete: (error) => {
        if (error === null) this.#replayOver(buffer, offset);
        completion.complete(error);
      },
    });
  }

  override async readVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    await this.inner.readVector(buffers, offset);
    let at = offset;
    for (const buffer of buffers) {
      this.#replayOver(buffer, at);
      at += buffer.length;
    }
  }

  openQueue(): StorageFile {
    return new ReplayedFile(this.inner.openQueue(), this.#ranges);
  }

  protected intercept(): undefined {
    return undefined;
  }

  /** @param buffer what the file has from `offset` on */
  #replayOver(buffer: Uint8Array, offset: number): void {
    const { starts, ends } = this.#ranges;
    const end = offset + buffer.length;
    for (let range = firstRangeAfter(this.#ranges, offset); starts[range] < end; range++) {
      const from = Math.max(offset, starts[range]);
      const to = Math.min(end, ends[range]);
      const part = buffer.subarray(from - offset, to - offset);
      const bytes = bytesOfRange(this.#ranges, range, from);
      if (bytes === undefined) part.fill(0);
      else part.set(bytes.subarray(0, part.length));
    }
  }
}
