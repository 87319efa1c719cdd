/**
 * Persistent bitmaps of an open image. While its disk changes, those that are enabled are marked in the file as
 * being in use, and one map in shared memory records for all of them (`engine/dirty-map`); at the end, or before
 * one of them is changed, what it has is added to the bits that are stored. All but marking runs while no queue
 * runs a request.
 *
 * A bitmap never changes in place: its new bits and table are written where nothing lies, then a new directory,
 * then the header is made to point there, and the clusters of the old ones are given up. Only flags are set where
 * they stand, each within a sector. So whatever is cut off leaves each bitmap as it was, or as it is to be, or
 * marked as being in use.
 */
import { isDeepStrictEqual } from 'node:util';
import type { AbortSignalLike } from '../../../abort-signal.js';
import type { DirtyMap } from '../../../engine/dirty-map.js';
import { ControlWord } from '../../../engine/words/control-block.js';
import {
  CowherdError,
  cannotOpen,
  nameMemoryError,
  printable,
  problemWith,
} from '../../../errors.js';
import { maxBitmapDirectoryBytes } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { BitmapExtent, BitmapSource, DiskBitmaps, NewBitmapFacts } from '../../driver.js';
import type { BitmapState } from '../../facts.js';
import {
  BitWindow,
  StoredBits,
  bitmapEntrySize,
  putBitmapCluster,
} from '../contents/bitmap-table.js';
import {
  type PersistentBitmap,
  bitmapClusters,
  bitmapFault,
  encodeBitmaps,
  readBitmaps,
} from '../contents/bitmaps.js';
import { asHostOffset } from '../layout/geometry.js';
import type { Qcow2Header } from '../layout/header.js';
import { type BitmapsPlace, withBitmaps } from '../layout/header-extensions.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Structure } from '../overlap/levels.js';
import { bitmapExtents } from '../report/bitmap-extents.js';
import { HeaderBegin } from './header-begin.js';
import { checkBitmapSize, checkNewBitmap } from './new-bitmap.js';
import { NewClusters } from './new-clusters.js';
import { OwedSteps } from './owed-steps.js';

/** A bitmap as the open image has it. */
interface OpenBitmap extends PersistentBitmap {
  /** Whether the mark that it is in use was set by this image, which knows what has changed since. */
  readonly isRecorded: boolean;
}

/** Refuses to write to an image whose bitmaps no program can open it with, as QEMU does. */
export async function checkBitmaps(file: StorageFile, header: Qcow2Header): Promise<void> {
  const { filename } = file;
  if (header.version !== 3) return;
  const directory = await readBitmaps(file, header);
  const names = new Set<string>();
  for (const bitmap of directory?.bitmaps ?? []) {
    const { name } = bitmap;
    const fault = names.has(name) ? `Bitmap already exists: ${name}` : bitmapFault(bitmap, header);
    if (fault !== undefined) throw cannotOpen('ERR_COWHERD_INVALID_IMAGE', filename, fault);
    names.add(name);
    if (!bitmap.inUse) await StoredBits.open(file, 2 ** header.clusterBits, bitmap);
  }
}

/** See the file's comment. */
export class Qcow2Bitmaps implements DiskBitmaps {
  readonly #metadata: Qcow2Metadata;
  readonly #map: DirtyMap;
  /** By their places in the directory: 1 for those that this image marks and records. */
  readonly #recorded: Uint8Array;
  readonly #owed = new OwedSteps();

  constructor(metadata: Qcow2Metadata) {
    this.#metadata = metadata;
    this.#map = metadata.dirtyMap;
    this.#recorded = metadata.recordedBitmaps;
  }

  async list(): Promise<readonly BitmapState[]> {
    return (await this.#read()).map((bitmap) => ({
      name: bitmap.name,
      granularity: 2 ** bitmap.granularityBits,
      isEnabled: bitmap.auto,
      isInconsistent: !isConsistent(bitmap),
    }));
  }

  add({ name, granularity, isEnabled }: NewBitmapFacts): Promise<void> {
    return this.#change(async (bitmaps, clusters) => {
      const { file, headerFile } = this.#metadata;
      const granularityBits = checkNewBitmap(file.filename, headerFile.header, bitmaps, {
        name,
        granularity,
      });
      const { clusterSize } = this.#metadata.geometry;
      const tableEntries = bitmapClusters(this.#size, granularityBits, clusterSize);
      const tableOffset = await clusters.write(new Uint8Array(tableEntries * bitmapEntrySize));
      const isRecorded = isEnabled && this.#map.isStarted;
      const added = { name, tableOffset, tableEntries, granularityBits, auto: isEnabled };
      return [...bitmaps, { ...added, inUse: isRecorded, isRecorded, isPlain: true }];
    });
  }

  remove(name: string): Promise<void> {
    return this.#change(async (bitmaps, clusters) => {
      const removed = this.#find(bitmaps, name);
      const stored = await this.#open(removed).catch((error: unknown) => {
        // One that was in use may have a table that is none.
        if (error instanceof CowherdError && error.code === 'ERR_COWHERD_INVALID_IMAGE') return;
        throw error;
      });
      for (let index = 0; index < (stored?.length ?? 0); index++) {
        clusters.giveUp(stored!.hostOffset(index), this.#metadata.geometry.clusterSize);
      }
      clusters.giveUp(removed.tableOffset, removed.tableEntries * bitmapEntrySize);
      return bitmaps.filter((bitmap) => bitmap !== removed);
    });
  }

  clear(name: string): Promise<void> {
    return this.#changeOne(name, (bitmap, clusters) =>
      this.#rewrite(clusters, bitmap, () => 'none'),
    );
  }

  setEnabled(name: string, isEnabled: boolean): Promise<void> {
    return this.#changeOne(name, (bitmap) => {
      const isRecorded = isEnabled && this.#map.isStarted;
      return { ...bitmap, auto: isEnabled, inUse: isRecorded, isRecorded };
    });
  }

  merge(name: string, source: BitmapSource, signal?: AbortSignalLike): Promise<void> {
    return this.#changeOne(name, async (bitmap, clusters, bitmaps) => {
      const runs = await this.#runsOf(source, bitmaps);
      return this.#rewrite(clusters, bitmap, async (start, end, read) => {
        signal?.throwIfAborted();
        let window: BitWindow | undefined;
        for await (const run of runs(start, end - start)) {
          window ??= await read();
          window.set(run.start, run.end);
        }
        return window ?? 'kept';
      });
    });
  }

  async *extents(
    name: string,
    offset: number,
    length: number,
    signal?: AbortSignalLike,
  ): AsyncGenerator<BitmapExtent> {
    const find = async (): Promise<OpenBitmap> => this.#usable(await this.#read(), name);
    const { granularityBits } = await this.#metadata.runAlone(find);
    const reach = this.#reach(granularityBits);
    const read = (index: number): Promise<Uint8Array | undefined> =>
      this.#metadata.runAlone(async () => {
        // It may have changed since, and its clusters belong to others.
        const bitmap = await find();
        if (bitmap.granularityBits !== granularityBits) throw this.#notThere(name);
        const window = await this.#window(bitmap, await this.#open(bitmap), index);
        if (bitmap.isRecorded) this.#addRecorded(window, reach);
        return window.bits;
      });
    yield* bitmapExtents({ granule: 2 ** granularityBits, reach, read }, offset, length, signal);
  }

  /** Has the image record what changes from now on: before anything does, inside the gate. */
  async record(): Promise<void> {
    const { headerFile } = this.#metadata;
    if (this.#map.isStarted) return;
    await headerFile.alone(async () => {
      if (this.#map.isStarted) return;
      const bitmaps = (await this.#read()).map((bitmap) => {
        const isRecorded = bitmap.auto && isConsistent(bitmap);
        return { ...bitmap, isRecorded, inUse: bitmap.inUse || isRecorded };
      });
      this.#makeRoom(bitmaps, this.#size);
      this.#noteRecorded(bitmaps);
      if (bitmaps.some(({ isRecorded }) => isRecorded)) await this.#writeFlags(bitmaps);
      this.#start(bitmaps, this.#size);
    });
  }

  /** Stores what was recorded, once everything else is durable and nobody changes the image any more. */
  async end(): Promise<void> {
    await this.#owed.settle();
    const bitmaps = await this.#read();
    if (bitmaps.some(({ isRecorded }) => isRecorded)) await this.#store(bitmaps, true);
  }

  /** Looks whether the bitmaps can be those of a disk of another size. @throws CowherdError if not */
  async checkSize(size: number): Promise<void> {
    for (const bitmap of await this.#read()) {
      this.#refuseInconsistent(bitmap);
      checkBitmapSize(this.#metadata.file.filename, bitmap.granularityBits, {
        ...this.#metadata.headerFile.header,
        size,
      });
    }
  }

  /** Has the header say how large the disk is, and its bitmaps be of that size at once. */
  async resize(size: number): Promise<void> {
    const { headerFile } = this.#metadata;
    if (headerFile.header.size === size) return;
    if ((await this.#read()).length === 0) {
      await headerFile.changeDisk({ size });
      if (this.#map.isStarted) this.#start([], size);
      return;
    }
    await this.#change(async (bitmaps, clusters) => {
      const resized: OpenBitmap[] = [];
      for (const bitmap of bitmaps) {
        resized.push(await this.#resized(clusters, bitmap, size));
      }
      return resized;
    }, size);
  }

  #resized(clusters: NewClusters, bitmap: OpenBitmap, size: number): Promise<OpenBitmap> {
    const old = this.#size;
    const rewritten: Rewriting = async (start, end, read) => {
      if (start >= old) return 'none';
      if (size >= end) return 'kept';
      const window = await read();
      window.clearFrom(size);
      return window;
    };
    return this.#rewrite(clusters, bitmap, rewritten, size);
  }

  /** Changes one bitmap that can be used. */
  #changeOne(
    name: string,
    change: (
      bitmap: OpenBitmap,
      clusters: NewClusters,
      all: readonly OpenBitmap[],
    ) => OpenBitmap | Promise<OpenBitmap>,
  ): Promise<void> {
    return this.#change(async (bitmaps, clusters) => {
      const chosen = this.#usable(bitmaps, name);
      const changed = await change(chosen, clusters, bitmaps);
      return bitmaps.map((bitmap) => (bitmap === chosen ? changed : bitmap));
    });
  }

  /** Puts others in the place of the bitmaps, once what was recorded has been added to them. */
  async #change(
    change: (
      bitmaps: readonly OpenBitmap[],
      clusters: NewClusters,
    ) => Promise<readonly OpenBitmap[]>,
    size = this.#size,
  ): Promise<void> {
    const { control, flushOrder, headerFile } = this.#metadata;
    await this.#owed.settle();
    control.store(ControlWord.changed, 1);
    await headerFile.clearUnknownAutoclear();
    await flushOrder.flushAll();
    const bitmaps = await this.#store(await this.#read(), false);
    const clusters = new NewClusters(this.#metadata, this.#owed);
    await clusters.during(async () => {
      await this.#replace(await change(bitmaps, clusters), clusters, size);
    });
  }

  /**
   * Adds what was recorded to what is stored.
   *
   * @param isEnd whether nothing is recorded any more, so that the marks go
   * @returns the bitmaps as they are then
   */
  async #store(bitmaps: readonly OpenBitmap[], isEnd: boolean): Promise<readonly OpenBitmap[]> {
    const clusters = new NewClusters(this.#metadata, this.#owed);
    return clusters.during(async () => {
      const stored: OpenBitmap[] = [];
      for (const bitmap of bitmaps) {
        const reach = this.#reach(bitmap.granularityBits);
        const now = bitmap.isRecorded
          ? await this.#rewrite(clusters, bitmap, async (start, _end, read) =>
              this.#map.hasAny(start, reach) ? this.#addRecorded(await read(), reach) : 'kept',
            )
          : bitmap;
        const mark = bitmap.isRecorded && isEnd ? { inUse: false, isRecorded: false } : {};
        stored.push({ ...now, ...mark });
      }
      if (!clusters.isEmpty) await this.#replace(stored, clusters, this.#size);
      else if (isEnd) {
        await this.#writeFlags(stored);
        this.#noteRecorded(stored);
      }
      return stored;
    });
  }

  #addRecorded(window: BitWindow, reach: number): BitWindow {
    for (const { start, end } of this.#map.runs(window.start, reach)) window.set(start, end);
    return window;
  }

  /** A bitmap with other bits, of which those that change are written to new clusters. */
  async #rewrite(
    clusters: NewClusters,
    bitmap: OpenBitmap,
    rewritten: Rewriting,
    size = this.#size,
  ): Promise<OpenBitmap> {
    const { clusterSize } = this.#metadata.geometry;
    const { granularityBits } = bitmap;
    const stored = await this.#open(bitmap);
    const reach = this.#reach(granularityBits);
    const tableEntries = bitmapClusters(size, granularityBits, clusterSize);
    const table = new DataView(new ArrayBuffer(tableEntries * bitmapEntrySize));
    let isSame = tableEntries === stored.length;
    for (let index = 0; index < Math.max(tableEntries, stored.length); index++) {
      const start = index * reach;
      const read = (): Promise<BitWindow> => this.#window(bitmap, stored, index);
      const now = index < tableEntries ? await rewritten(start, start + reach, read) : 'none';
      if (now === 'kept' || (now !== 'none' && !now.hasChanged)) {
        stored.copyEntry(index, table);
        continue;
      }
      isSame &&= now === 'none' && index < stored.length && stored.isNone(index);
      if (index < stored.length) clusters.giveUp(stored.hostOffset(index), clusterSize);
      if (now === 'none' || now.bits?.some((byte) => byte !== 0) !== true) continue;
      putBitmapCluster(table, index, await clusters.write(now.bits));
    }
    if (isSame) return bitmap;
    clusters.giveUp(bitmap.tableOffset, bitmap.tableEntries * bitmapEntrySize);
    const tableOffset = await clusters.write(new Uint8Array(table.buffer));
    return { ...bitmap, tableOffset, tableEntries };
  }

  /** Has the header point at a directory of these bitmaps, and gives up what is theirs no more. */
  async #replace(
    bitmaps: readonly OpenBitmap[],
    clusters: NewClusters,
    size: number,
  ): Promise<void> {
    const { headerFile, overlap } = this.#metadata;
    const { bitmapsOffset: old, bitmapsBytes: oldBytes } = headerFile.bitmapsPlace;
    const bytes = encodeBitmaps(bitmaps);
    if (bytes.length > maxBitmapDirectoryBytes) {
      throw this.#refusal('Not enough space in the bitmap directory');
    }
    this.#makeRoom(bitmaps, size);
    const bitmapsOffset = bytes.length === 0 ? 0 : await clusters.write(bytes);
    clusters.giveUp(old, oldBytes);
    await clusters.flush();
    const place = {
      bitmapCount: bitmaps.length,
      bitmapsOffset,
      bitmapsBytes: bytes.length,
    };
    try {
      await this.#pointAt(place, size);
    } catch (error) {
      await this.#owed.later(() => this.#settleHeader());
      // What is left to be done once the header points there changes nothing of that.
      if (!isDeepStrictEqual(headerFile.bitmapsPlace, place)) throw error;
    }
    overlap.protect(asHostOffset(bitmapsOffset), bytes.length, Structure.bitmapDirectory);
    overlap.release(asHostOffset(old), oldBytes, Structure.bitmapDirectory);
    this.#noteRecorded(bitmaps);
    if (this.#map.isStarted) this.#start(bitmaps, size);
    await clusters.end();
  }

  async #pointAt(place: BitmapsPlace, size: number): Promise<void> {
    const { headerFile } = this.#metadata;
    const { bitmapsPlace } = headerFile;
    const begin = await HeaderBegin.read(this.#metadata);
    const { contents } = begin;
    const write = (to: BitmapsPlace): Promise<void> => {
      const wanted = { ...contents, extensions: withBitmaps(contents.extensions, to) };
      if (!begin.hasRoomFor(wanted)) throw this.#refusal('No space left in the file header');
      return begin.write(wanted, to);
    };
    if (place.bitmapCount === 0) {
      if (bitmapsPlace.bitmapCount > 0) await write(place);
      return;
    }
    if (!begin.holdsBitmapsPlace) {
      await write(size === this.#size ? place : bitmapsPlace);
      if (size === this.#size) return;
    }
    await headerFile.changeDisk({ ...place, size });
  }

  /** Makes the file say where the bitmaps lie for all that is known, after a change that failed. */
  async #settleHeader(): Promise<void> {
    const { headerFile } = this.#metadata;
    await headerFile.settle();
    const { bitmapsPlace } = headerFile;
    const begin = await HeaderBegin.read(this.#metadata);
    if (bitmapsPlace.bitmapCount === 0 || begin.holdsBitmapsPlace) return;
    const { contents } = begin;
    const wanted = { ...contents, extensions: withBitmaps(contents.extensions, bitmapsPlace) };
    await begin.write(wanted, bitmapsPlace);
  }

  /** Sets the flags of bitmaps where they stand. */
  async #writeFlags(bitmaps: readonly OpenBitmap[]): Promise<void> {
    const { file, headerFile, overlap } = this.#metadata;
    const hostOffset = asHostOffset(headerFile.bitmapsPlace.bitmapsOffset);
    const bytes = encodeBitmaps(bitmaps);
    overlap.check(hostOffset, bytes.length, 'the bitmap directory', Structure.bitmapDirectory);
    await file.write(bytes, hostOffset);
    await file.flush();
  }

  /** Notes which marks are this image's own. */
  #noteRecorded(bitmaps: readonly OpenBitmap[]): void {
    this.#recorded.fill(0);
    for (const [index, { isRecorded }] of bitmaps.entries()) {
      if (isRecorded) this.#recorded[index] = 1;
    }
  }

  /** Records for the bitmaps that are to be, with nothing recorded yet. */
  #start(bitmaps: readonly OpenBitmap[], size: number): void {
    this.#map.start(finest(bitmaps), size);
  }

  /** Sees to it that there is memory to record in. @throws ERR_COWHERD_NO_MEMORY if there is none */
  #makeRoom(bitmaps: readonly OpenBitmap[], size: number): void {
    try {
      this.#map.makeRoom(finest(bitmaps), size);
    } catch (error) {
      throw nameMemoryError(error, this.#metadata.file.filename);
    }
  }

  get #size(): number {
    return this.#metadata.headerFile.header.size;
  }

  /** Guest bytes that a cluster of bits stands for. */
  #reach(granularityBits: number): number {
    return this.#metadata.geometry.clusterSize * 8 * 2 ** granularityBits;
  }

  async #read(): Promise<readonly OpenBitmap[]> {
    const { file, headerFile } = this.#metadata;
    const directory = await readBitmaps(file, headerFile.header);
    return (directory?.bitmaps ?? []).map((bitmap, index) => ({
      ...bitmap,
      isRecorded: bitmap.inUse && this.#recorded[index] === 1,
    }));
  }

  #open(bitmap: OpenBitmap): Promise<StoredBits> {
    const { file, geometry, headerFile } = this.#metadata;
    const fault = bitmapFault(bitmap, headerFile.header);
    if (fault !== undefined) throw problemWith('ERR_COWHERD_INVALID_IMAGE', file.filename, fault);
    return StoredBits.open(file, geometry.clusterSize, bitmap);
  }

  async #window(
    { granularityBits }: OpenBitmap,
    stored: StoredBits,
    index: number,
  ): Promise<BitWindow> {
    const { clusterSize } = this.#metadata.geometry;
    const start = index * this.#reach(granularityBits);
    return new BitWindow(start, 2 ** granularityBits, clusterSize, await stored.read(index));
  }

  /** What a bitmap to be merged says of ranges of the disk. */
  async #runsOf(source: BitmapSource, bitmaps: readonly OpenBitmap[]): Promise<BitmapRuns> {
    if (typeof source !== 'string') {
      if (source.size === this.#size) return (start, length) => source.runs(start, length);
      throw this.#refusal(
        `Bitmaps are of different sizes (destination size is ${this.#size}, source size is ${source.size}) and can't be merged`,
      );
    }
    const bitmap = this.#usable(bitmaps, source);
    const stored = await this.#open(bitmap);
    const windows = {
      granule: 2 ** bitmap.granularityBits,
      reach: this.#reach(bitmap.granularityBits),
      read: (index: number) => stored.read(index),
    };
    const size = this.#size;
    return async function* (start, length) {
      const within = Math.min(length, size - start);
      for await (const extent of bitmapExtents(windows, start, within, undefined)) {
        if (extent.dirty) yield { start: extent.start, end: extent.start + extent.length };
      }
    };
  }

  #find(bitmaps: readonly OpenBitmap[], name: string): OpenBitmap {
    const found = bitmaps.find((bitmap) => bitmap.name === name);
    if (found === undefined) throw this.#notThere(name);
    return found;
  }

  #usable(bitmaps: readonly OpenBitmap[], name: string): OpenBitmap {
    const found = this.#find(bitmaps, name);
    this.#refuseInconsistent(found);
    return found;
  }

  #refuseInconsistent(bitmap: OpenBitmap): void {
    if (isConsistent(bitmap)) return;
    const { filename } = this.#metadata.file;
    const why = `Bitmap '${printable(bitmap.name)}' is inconsistent and cannot be used`;
    const hint = 'Try block-dirty-bitmap-remove to delete this bitmap from disk';
    throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why, { hint });
  }

  #notThere(name: string): CowherdError {
    const why = `Dirty bitmap '${printable(name)}' not found`;
    return problemWith('ERR_COWHERD_NOT_FOUND', this.#metadata.file.filename, why);
  }

  #refusal(why: string): CowherdError {
    return problemWith('ERR_COWHERD_UNSUPPORTED', this.#metadata.file.filename, why);
  }
}

/** The bits of a cluster as they are to be: other ones, none, or what is stored. */
type Rewriting = (
  start: number,
  end: number,
  read: () => Promise<BitWindow>,
) => BitWindow | 'none' | 'kept' | Promise<BitWindow | 'none' | 'kept'>;

/** The stretches of a range of the disk that a bitmap says have changed. */
type BitmapRuns = (
  start: number,
  length: number,
) =>
  | Iterable<{ readonly start: number; readonly end: number }>
  | AsyncIterable<{ readonly start: number; readonly end: number }>;

/** Whether a bitmap says what has changed. */
function isConsistent({ inUse, isRecorded }: OpenBitmap): boolean {
  return !inUse || isRecorded;
}

/** The finest granularity of those that are recorded, in bits; undefined if none is. */
function finest(bitmaps: readonly OpenBitmap[]): number | undefined {
  const recorded = bitmaps.filter(({ isRecorded }) => isRecorded);
  if (recorded.length === 0) return undefined;
  return recorded.reduce((least, { granularityBits }) => Math.min(least, granularityBits), 31);
}
