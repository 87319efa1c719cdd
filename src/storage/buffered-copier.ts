/** Copying data between any two files, by reads and writes of them. */
import { zeroRuns } from '../native/zero-scan.js';
import type {
  CopiedPart,
  CopyOutcome,
  CopyRule,
  CopySegment,
  DataCopier,
  StorageFile,
} from './storage.js';

/** Room that is given to granules; in bytes. */
interface Room {
  start: number;
  length: number;
  readonly isZero: boolean;
}

/** A stretch of what is copied; end is exclusive. */
interface Stretch {
  readonly start: number;
  readonly end: number;
}

/** See the file's comment, and `DataCopier`. */
export class BufferedCopier implements DataCopier {
  readonly #file: Pick<StorageFile, 'write'>;
  readonly #rule: CopyRule;
  readonly #room: Room[] = [];
  /** Resolves when the copy that began last, and all before it, have ended. */
  #last: Promise<void> = Promise.resolve();

  constructor(file: Pick<StorageFile, 'write'>, rule: CopyRule) {
    this.#file = file;
    this.#rule = rule;
  }

  offer(start: number, length: number, isZero: boolean): void {
    this.#room.push({ start, length, isZero });
  }

  async copy(
    segments: readonly CopySegment[],
    offset: number,
    length: number,
  ): Promise<CopyOutcome> {
    const before = this.#last;
    let end = (): void => undefined;
    this.#last = new Promise<void>((resolve) => {
      end = resolve;
    });
    const parts: CopiedPart[] = [];
    try {
      const granule = Math.max(1, this.#rule.granule);
      const bytes = new Uint8Array(Math.ceil(length / granule) * granule);
      const read = readSegments(segments, bytes);
      // Its turn comes first; until then the failure must not go unhandled.
      read.catch(() => undefined);
      await before;
      await read;
      const stretches = this.#dataIn(bytes.subarray(0, length));
      if (this.#rule.granule === 0) await this.#writeInPlace(bytes, stretches, offset, parts);
      else await this.#writePlaced(bytes, stretches, parts);
      return { parts, failure: undefined };
    } catch (error) {
      return { parts, failure: error as Error };
    } finally {
      void before.then(end);
    }
  }

  #dataIn(bytes: Uint8Array): Stretch[] {
    const { sparseSize } = this.#rule;
    if (sparseSize === 0) return [{ start: 0, end: bytes.length }];
    const stretches: Stretch[] = [];
    let start = 0;
    for (const [index, length] of zeroRuns(bytes, sparseSize).entries()) {
      if (index % 2 === 0 && length > 0) stretches.push({ start, end: start + length });
      start += length;
    }
    return stretches;
  }

  async #writeInPlace(
    bytes: Uint8Array,
    stretches: readonly Stretch[],
    offset: number,
    parts: CopiedPart[],
  ): Promise<void> {
    for (const { start, end } of stretches) {
      parts.push({ at: start, length: end - start, hostOffset: offset + start });
      await this.#file.write(bytes.subarray(start, end), offset + start);
    }
  }

  async #writePlaced(
    bytes: Uint8Array,
    stretches: readonly Stretch[],
    parts: CopiedPart[],
  ): Promise<void> {
    for (const whole of wholeGranules(stretches, this.#rule.granule)) {
      for (let at = whole.start; at < whole.end;) {
        const { start, length, isZero } = this.#take(whole.end - at);
        const part = { at, length, hostOffset: start };
        parts.push(part);
        const written = isZero ? within(stretches, part) : [{ start: at, end: at + length }];
        for (const stretch of written) {
          const data = bytes.subarray(stretch.start, stretch.end);
          await this.#file.write(data, start + stretch.start - at);
        }
        at += length;
      }
    }
  }

  /** Takes at most so many bytes of room, of one piece. */
  #take(most: number): Room {
    const [first] = this.#room as [Room | undefined];
    if (first === undefined) throw new Error('no room was given for what is copied');
    const { start, isZero } = first;
    const length = Math.min(most, first.length);
    first.start += length;
    first.length -= length;
    if (first.length === 0) this.#room.shift();
    return { start, length, isZero };
  }
}

async function readSegments(segments: readonly CopySegment[], bytes: Uint8Array): Promise<void> {
  let at = 0;
  const reads: Promise<void>[] = [];
  for (const { file, offset, length } of segments) {
    if (file !== undefined) reads.push(file.read(bytes.subarray(at, at + length), offset));
    at += length;
  }
  await Promise.allSettled(reads);
  await Promise.all(reads);
}

/** The granules that are touched, neighbours as one stretch. */
function wholeGranules(stretches: readonly Stretch[], granule: number): Stretch[] {
  const whole: Stretch[] = [];
  for (const { start, end } of stretches) {
    const from = Math.floor(start / granule) * granule;
    const to = Math.ceil(end / granule) * granule;
    const last = whole.at(-1);
    if (last !== undefined && from <= last.end) whole[whole.length - 1] = { ...last, end: to };
    else whole.push({ start: from, end: to });
  }
  return whole;
}

/** What of the stretches lies within a part. */
function within(stretches: readonly Stretch[], { at, length }: CopiedPart): Stretch[] {
  return stretches
    .map(({ start, end }) => ({ start: Math.max(start, at), end: Math.min(end, at + length) }))
    .filter(({ start, end }) => start < end);
}
