/**
 * Holes of the files that an image lies in, within what it says is data: they read as zeroes, and need not be
 * read to know it. Formats with large blocks, and images made with their space set aside, have many.
 */
import type { Extent } from '../image/api/reports.js';
import type { PlainBytes } from '../image/graph/data-copy.js';

/** An extent, and where its bytes lie as the guest sees them, if they do. */
export interface SourceExtent extends Extent {
  readonly bytes?: PlainBytes | undefined;
}

type File = PlainBytes['file'];

/** See the file's comment. Files may not change meanwhile. */
export class HostHoles {
  readonly #hasHoles = new Map<File, boolean>();

  /** Whether an extent may have holes, as far as is known of its file. */
  mayBeIn({ bytes }: SourceExtent): boolean | Promise<boolean> {
    if (bytes === undefined) return false;
    return this.#hasHoles.get(bytes.file) ?? this.#lookAt(bytes.file);
  }

  /** An extent that may have holes as the stretches of it that are data and holes. */
  async *without(extent: SourceExtent): AsyncGenerator<SourceExtent> {
    const bytes = extent.bytes!;
    for (let at = 0; at < extent.length;) {
      const offset = bytes.offset + at;
      const status = await bytes.file.status(offset, extent.length - at);
      const length = Math.min(status.length, extent.length - at);
      const start = extent.start + at;
      yield status.data
        ? { ...extent, start, length, bytes: { ...bytes, offset } }
        : { ...extent, start, length, zero: true, data: false, bytes: undefined };
      at += length;
    }
  }

  /** Whether a file takes less room than it is long, as far as that is known. */
  async #lookAt(file: File): Promise<boolean> {
    const taken = file.limits.detectsHoles ? await file.allocatedSize() : undefined;
    const mayHave = taken !== undefined && taken < (await file.size());
    this.#hasHoles.set(file, mayHave);
    return mayHave;
  }
}
