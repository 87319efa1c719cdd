/** The persistent bitmaps of an open image, whichever format it has. */
import { DirtyMap, allocateDirtyMap } from '../../engine/dirty-map.js';
import { type CowherdError, nameMemoryError, printable, problemWith } from '../../errors.js';
import type { BitmapExtent, BitmapSource, DiskBitmaps } from '../../format/driver.js';
import { maxBitmapBytes } from '../../limits.js';
import type {
  AddBitmapOptions,
  BitmapChoice,
  BitmapOptions,
  DirtyRange,
  Image,
  ImageBitmaps,
} from '../api/image.js';
import type { BitmapState } from '../api/reports.js';
import {
  type OptionRules,
  abortSignal,
  checkOptions,
  flag,
  wholeNumber,
} from '../options/option-check.js';
import { type ChangeableDisk, type WholeDisk, checkWritable } from './whole-disk.js';

const rules: OptionRules<BitmapOptions> = { signal: abortSignal };
const addingRules: OptionRules<AddBitmapOptions> = {
  granularity: wholeNumber(0),
  disabled: flag,
  signal: abortSignal,
};

/** A part of the disk, and what ends the report of it. */
interface ReportedRange {
  readonly offset?: number;
  readonly length?: number;
  readonly signal?: AbortSignal;
}

/** What has the bitmaps. */
export interface BitmapDisk extends ChangeableDisk {
  /** What one says of a part of the disk; checks the range. */
  readonly extents: (name: string, range: ReportedRange) => AsyncIterable<BitmapExtent>;
}

/** What a bitmap says of a range of a disk. */
export function bitmapExtents(
  { filename, format, node }: WholeDisk,
  name: string,
  range: ReportedRange,
): AsyncIterable<BitmapExtent> {
  const { bitmaps } = format;
  if (bitmaps === undefined) throw noBitmaps(filename);
  const offset = Math.min(range.offset ?? 0, node.size);
  const length = Math.min(range.length ?? Infinity, node.size - offset);
  return bitmaps.extents(name, offset, length, range.signal);
}

/** See `Image.bitmaps`. */
export class BitmapsOfImage implements ImageBitmaps {
  readonly #disk: BitmapDisk;

  constructor(disk: BitmapDisk) {
    this.#disk = disk;
  }

  list(): Promise<readonly BitmapState[]> {
    const { change, format, node } = this.#disk;
    return change(undefined, async () => {
      const { bitmaps } = format;
      if (bitmaps === undefined) return [];
      return node.permissions.write ? node.runAlone(() => bitmaps.list()) : bitmaps.list();
    });
  }

  add(name: string, options: AddBitmapOptions = {}): Promise<void> {
    const { granularity, disabled = false } = options;
    const add = (bitmaps: DiskBitmaps): Promise<void> =>
      bitmaps.add({ name, granularity, isEnabled: !disabled });
    return this.#change(name, options, addingRules, add, noBitmaps);
  }

  remove(name: string, options: BitmapOptions = {}): Promise<void> {
    return this.#change(name, options, rules, (bitmaps) => bitmaps.remove(name));
  }

  clear(name: string, options: BitmapOptions = {}): Promise<void> {
    return this.#change(name, options, rules, (bitmaps) => bitmaps.clear(name));
  }

  enable(name: string, options: BitmapOptions = {}): Promise<void> {
    return this.#change(name, options, rules, (bitmaps) => bitmaps.setEnabled(name, true));
  }

  disable(name: string, options: BitmapOptions = {}): Promise<void> {
    return this.#change(name, options, rules, (bitmaps) => bitmaps.setEnabled(name, false));
  }

  async merge(
    name: string,
    sources: BitmapChoice | readonly BitmapChoice[],
    options: BitmapOptions = {},
  ): Promise<void> {
    const { filename } = this.#disk;
    const list: readonly BitmapChoice[] = Array.isArray(sources) ? sources : [sources];
    for (const source of list) {
      // Who looks for both misses this one first.
      if (!(await this.list()).some((bitmap) => bitmap.name === name))
        throw notThere(filename, name);
      const merged = await this.#sourceOf(checkedChoice(filename, source), options.signal);
      await this.#change(name, options, rules, (bitmaps, signal) =>
        bitmaps.merge(name, merged, signal),
      );
    }
  }

  async *dirtyRanges(name: string, range: ReportedRange = {}): AsyncGenerator<DirtyRange> {
    for await (const { start, length, dirty } of this.#disk.extents(name, range)) {
      if (dirty) yield { offset: start, length };
    }
  }

  /** What a bitmap of another image says, taken before the gate of this one is closed. */
  async #sourceOf(choice: BitmapChoice, signal: AbortSignal | undefined): Promise<BitmapSource> {
    if (typeof choice === 'string') return choice;
    const { image, name } = choice;
    const found = (await image.bitmaps.list()).find((bitmap) => bitmap.name === name);
    if (found === undefined) throw notThere(image.filename, name);
    const { size } = image;
    const granularityBits = Math.log2(found.granularity);
    const map = new DirtyMap(allocateDirtyMap(maxBitmapBytes));
    for await (const range of image.bitmaps.dirtyRanges(name, signal && { signal })) {
      if (map.granularityBits === undefined) this.#begin(map, granularityBits, size);
      map.note(range.offset, range.length);
    }
    return { size, runs: (start, length) => map.runs(start, length) };
  }

  #begin(map: DirtyMap, granularityBits: number, size: number): void {
    try {
      map.start(granularityBits, size);
    } catch (error) {
      throw nameMemoryError(error, this.#disk.filename);
    }
  }

  // Not async, but for failures.
  async #change<Options extends BitmapOptions>(
    name: string,
    options: Options,
    optionRules: OptionRules<Options>,
    section: (bitmaps: DiskBitmaps, signal: AbortSignal | undefined) => Promise<void>,
    refusal: (filename: string, name: string) => CowherdError = notThere,
  ): Promise<void> {
    const { change, filename, format, node } = this.#disk;
    checkOptions(options, optionRules, filename);
    if (typeof name !== 'string') throw badArgument(filename, 'the name of a bitmap is a string');
    const { signal } = options;
    await change(signal, async () => {
      checkWritable(this.#disk);
      const { bitmaps } = format;
      if (bitmaps === undefined) throw refusal(filename, name);
      signal?.throwIfAborted();
      await node.runAlone(() => section(bitmaps, signal));
    });
  }
}

function checkedChoice(filename: string, choice: BitmapChoice): BitmapChoice {
  const given: unknown = choice;
  if (typeof given === 'string') return choice;
  const { image, name } = (typeof given === 'object' && given !== null ? given : {}) as {
    readonly image?: Partial<Image> | null;
    readonly name?: unknown;
  };
  if (typeof image?.bitmaps === 'object' && typeof name === 'string') return choice;
  throw badArgument(filename, 'a bitmap is chosen by its name, or by an image and its name');
}

function noBitmaps(filename: string): CowherdError {
  const why = 'images of this format have no bitmaps';
  const reason = 'Operation not supported';
  return problemWith('ERR_COWHERD_UNSUPPORTED', filename, why, {
    operation: 'store bitmap',
    reason,
  });
}

function notThere(filename: string, name: string): CowherdError {
  const why = `Dirty bitmap '${printable(name)}' not found`;
  return problemWith('ERR_COWHERD_NOT_FOUND', filename, why);
}

function badArgument(filename: string, why: string): CowherdError {
  return problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
}
