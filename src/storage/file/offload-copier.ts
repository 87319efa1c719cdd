/** Copying data within the host, which shares blocks or copies them by itself, as far as it can. */
import type { CopiedPart, CopyOutcome, CopySegment, DataCopier, StorageFile } from '../storage.js';

/** See the file's comment, and `DataCopier`; for places of their own. */
export class OffloadCopier implements DataCopier {
  readonly #file: Pick<StorageFile, 'copyFrom'>;
  readonly #other: DataCopier;
  /** Files that nothing can be copied from in this way. */
  readonly #refused = new Set<StorageFile>();

  /** @param other copies what the host does not */
  constructor(file: Pick<StorageFile, 'copyFrom'>, other: DataCopier) {
    this.#file = file;
    this.#other = other;
  }

  offer(start: number, length: number, isZero: boolean): void {
    this.#other.offer(start, length, isZero);
  }

  async copy(
    segments: readonly CopySegment[],
    offset: number,
    length: number,
  ): Promise<CopyOutcome> {
    const parts: CopiedPart[] = [];
    let at = 0;
    try {
      for (const [index, segment] of segments.entries()) {
        if (segment.file !== undefined) {
          if (!(await this.#offload(segment.file, segment, offset + at))) {
            const rest = segments.slice(index);
            const outcome = await this.#other.copy(rest, offset + at, length - at);
            const before = at;
            parts.push(...outcome.parts.map((part) => ({ ...part, at: part.at + before })));
            return { ...outcome, parts };
          }
          parts.push({ at, length: segment.length, hostOffset: offset + at });
        }
        at += segment.length;
      }
      return { parts, failure: undefined };
    } catch (error) {
      parts.push({ at, length: length - at, hostOffset: offset + at });
      return { parts, failure: error as Error };
    }
  }

  async #offload(file: StorageFile, segment: CopySegment, to: number): Promise<boolean> {
    if (this.#refused.has(file)) return false;
    const isCopied = await this.#file.copyFrom(file, segment.offset, to, segment.length);
    if (!isCopied) this.#refused.add(file);
    return isCopied;
  }
}
