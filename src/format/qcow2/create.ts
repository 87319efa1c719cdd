/**
 * Writing a new, empty image: header, refcount structures and L1 table, and with preallocation the
 * L2 tables and data clusters. The header goes last, so that what was cut off is no image at all.
 *
 *     [ header ][ refcount table ][ refcount blocks ][ L1 table ][ L2 tables ][ data … ]
 *                                                                └─ preallocation only ─┘
 */
import { CowherdError } from '../../errors.js';
import { maxL1TableBytes, maxRefcountTableBytes } from '../../limits.js';
import { preallocate } from '../../storage/preallocate.js';
import type { StorageFile } from '../../storage/storage.js';
import { Geometry } from './geometry.js';
import {
  Autoclear,
  Compatible,
  type CompressionType,
  Incompatible,
  encodeHeader,
  extensionsFor,
} from './header.js';
import { L2EntryView } from './l2-entry.js';
import { refcountWidth } from './refcount-width.js';

/** Bytes written at a time, and how many such writes are under way. */
const chunkBytes = 4 * 1024 * 1024;
const writesAhead = 4;

/** The options of a new image; every one decided and valid. */
export interface Qcow2CreateOptions {
  readonly size: number;
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly lazyRefcounts: boolean;
  readonly extendedL2: boolean;
  readonly compressionType: CompressionType;
  readonly backingFile: string | undefined;
  readonly backingFormat: string | undefined;
  readonly dataFileName: string | undefined;
  readonly dataFileRaw: boolean;
  readonly preallocation: 'off' | 'metadata' | 'falloc' | 'full';
}

/** Where each part of a new image lies, in clusters. */
interface Layout {
  readonly tableClusters: number;
  readonly blocks: number;
  readonly l1Clusters: number;
  readonly l2Tables: number;
  readonly dataClusters: number;
  readonly firstBlock: number;
  readonly l1: number;
  readonly firstL2: number;
  readonly firstData: number;
  readonly total: number;
}

/**
 * Makes an empty file, and its external data file if it has one, into an image.
 *
 * @throws ERR_COWHERD_INVALID_ARGUMENT if the disk is too large for the cluster size, or the signal's
 *   reason
 */
export async function createQcow2(
  file: StorageFile,
  dataFile: StorageFile | undefined,
  options: Qcow2CreateOptions,
  signal?: AbortSignal,
): Promise<void> {
  const geometry = new Geometry(options);
  const layout = planLayout(geometry, options, dataFile !== undefined);
  const { clusterSize } = geometry;
  await file.truncate(layout.total * clusterSize);
  const writer = new ChunkWriter(file, signal);
  await writeRefcountTable(writer, geometry, layout);
  await writeRefcountBlocks(writer, geometry, layout);
  await writeL1Table(writer, geometry, layout);
  await writeL2Tables(writer, geometry, layout, options, dataFile !== undefined);
  await writer.finish();
  await allocateData(file, dataFile, geometry, layout, options, signal);
  await file.flush();
  await file.write(headerBytes(options, layout, geometry), 0);
  await file.flush();
  await dataFile?.flush();
}

function planLayout(geometry: Geometry, options: Qcow2CreateOptions, external: boolean): Layout {
  const { clusterSize, refcountsPerBlock } = geometry;
  const l1Entries = geometry.l1Entries(options.size);
  if (l1Entries * 8 > maxL1TableBytes) {
    throw new CowherdError(
      'ERR_COWHERD_INVALID_ARGUMENT',
      `The image size is too large for a cluster size of ${clusterSize} bytes (try using a larger cluster size)`,
    );
  }
  const preallocated = options.preallocation !== 'off';
  const guestClusters = geometry.clusters(options.size);
  const l1Clusters = geometry.clusters(l1Entries * 8);
  const l2Tables = preallocated ? l1Entries : 0;
  const dataClusters = preallocated && !external ? guestClusters : 0;
  let blocks = 1;
  let tableClusters = 1;
  for (;;) {
    const total = 1 + tableClusters + blocks + l1Clusters + l2Tables + dataClusters;
    const neededBlocks = Math.ceil(total / refcountsPerBlock);
    const neededTable = geometry.clusters(neededBlocks * 8);
    if (neededBlocks === blocks && neededTable === tableClusters) break;
    blocks = neededBlocks;
    tableClusters = neededTable;
  }
  if (tableClusters * clusterSize > maxRefcountTableBytes) {
    throw new CowherdError(
      'ERR_COWHERD_INVALID_ARGUMENT',
      `The image size is too large to preallocate with a cluster size of ${clusterSize} bytes`,
    );
  }
  const firstBlock = 1 + tableClusters;
  const l1 = firstBlock + blocks;
  const firstL2 = l1 + l1Clusters;
  const firstData = firstL2 + l2Tables;
  return {
    tableClusters,
    blocks,
    l1Clusters,
    l2Tables,
    dataClusters,
    firstBlock,
    l1,
    firstL2,
    firstData,
    total: firstData + dataClusters,
  };
}

function headerBytes(options: Qcow2CreateOptions, layout: Layout, geometry: Geometry): Uint8Array {
  const { clusterSize } = geometry;
  const l1Entries = geometry.l1Entries(options.size);
  let incompatibleFeatures = 0;
  if (options.dataFileName !== undefined) incompatibleFeatures |= Incompatible.externalDataFile;
  if (options.compressionType !== 'zlib') incompatibleFeatures |= Incompatible.compressionType;
  if (options.extendedL2) incompatibleFeatures |= Incompatible.extendedL2;
  return encodeHeader({
    version: options.version,
    clusterBits: options.clusterBits,
    size: options.size,
    cryptMethod: 0,
    l1Entries,
    l1TableOffset: l1Entries > 0 ? layout.l1 * clusterSize : 0,
    refcountTableOffset: clusterSize,
    refcountTableClusters: layout.tableClusters,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatibleFeatures,
    compatibleFeatures: options.lazyRefcounts ? Compatible.lazyRefcounts : 0,
    autoclearFeatures: options.dataFileRaw ? Autoclear.rawExternalData : 0,
    hasUnknownAutoclear: false,
    refcountOrder: options.refcountOrder,
    compressionType: options.compressionType,
    backingFile: options.backingFile,
    extensions: extensionsFor(options.version, options.backingFormat, options.dataFileName),
  });
}

/** Writes one chunk after the other, a few at a time, in buffers it lends out. */
class ChunkWriter {
  readonly #file: StorageFile;
  readonly #signal: AbortSignal | undefined;
  readonly #underWay = new Map<Uint8Array, Promise<void>>();
  readonly #spare: Uint8Array[] = [];

  constructor(file: StorageFile, signal: AbortSignal | undefined) {
    this.#file = file;
    this.#signal = signal;
  }

  /** A buffer of `chunkBytes` bytes with whatever it held before. */
  async lend(): Promise<Uint8Array> {
    this.#signal?.throwIfAborted();
    if (this.#underWay.size >= writesAhead) await Promise.race(this.#underWay.values());
    return this.#spare.pop() ?? new Uint8Array(chunkBytes);
  }

  /** Writes the first `length` bytes of a lent buffer. */
  write(chunk: Uint8Array, length: number, hostOffset: number): void {
    const done = this.#file.write(chunk.subarray(0, length), hostOffset).then(() => {
      this.#underWay.delete(chunk);
      this.#spare.push(chunk);
    });
    done.catch(() => undefined);
    this.#underWay.set(chunk, done);
  }

  async finish(): Promise<void> {
    await Promise.all(this.#underWay.values());
  }
}

/** Writes a table of host offsets of consecutive clusters. */
async function writePointers(
  writer: ChunkWriter,
  hostOffset: number,
  count: number,
  pointer: (index: number) => number,
  flag: number,
): Promise<void> {
  for (let first = 0; first < count; first += chunkBytes / 8) {
    const chunk = await writer.lend();
    const view = new DataView(chunk.buffer);
    const entries = Math.min(count - first, chunkBytes / 8);
    for (let index = 0; index < entries; index++) {
      const value = pointer(first + index);
      view.setUint32(index * 8, flag + Math.floor(value / 0x100000000));
      view.setUint32(index * 8 + 4, value % 0x100000000);
    }
    writer.write(chunk, entries * 8, hostOffset + first * 8);
  }
}

async function writeRefcountTable(
  writer: ChunkWriter,
  { clusterSize }: Geometry,
  layout: Layout,
): Promise<void> {
  const block = (index: number): number => (layout.firstBlock + index) * clusterSize;
  await writePointers(writer, clusterSize, layout.blocks, block, 0);
}

async function writeL1Table(
  writer: ChunkWriter,
  { clusterSize }: Geometry,
  layout: Layout,
): Promise<void> {
  const copied = 0x80000000;
  const table = (index: number): number => (layout.firstL2 + index) * clusterSize;
  await writePointers(writer, layout.l1 * clusterSize, layout.l2Tables, table, copied);
}

async function writeRefcountBlocks(
  writer: ChunkWriter,
  geometry: Geometry,
  layout: Layout,
): Promise<void> {
  const width = refcountWidth(geometry.refcountOrder);
  const perChunk = (chunkBytes * 8) / geometry.refcountBits;
  const bytesFor = (counts: number): number => Math.ceil((counts * geometry.refcountBits) / 8);
  const start = layout.firstBlock * geometry.clusterSize;
  // All chunks but the last are alike: every cluster counted once.
  const full = new Uint8Array(Math.min(chunkBytes, bytesFor(Math.min(layout.total, perChunk))));
  const counts = Math.min(layout.total, perChunk);
  const view = new DataView(full.buffer);
  for (let index = 0; index < counts; index++) width.set(view, 0, index, 1);
  for (let first = 0; first < layout.total; first += perChunk) {
    const chunk = await writer.lend();
    const left = Math.min(layout.total - first, perChunk);
    chunk.set(full);
    if (left < counts) {
      const tail = new DataView(chunk.buffer);
      for (let index = left; index < Math.ceil(left / 8) * 8; index++) {
        width.set(tail, 0, index, 0);
      }
    }
    writer.write(chunk, bytesFor(left), start + bytesFor(first));
  }
}

async function writeL2Tables(
  writer: ChunkWriter,
  geometry: Geometry,
  layout: Layout,
  options: Qcow2CreateOptions,
  external: boolean,
): Promise<void> {
  if (layout.l2Tables === 0) return;
  const { clusterSize, l2EntrySize } = geometry;
  const entries = new L2EntryView(geometry, external);
  const clusters = geometry.clusters(options.size);
  const firstData = external ? 0 : layout.firstData;
  const perChunk = chunkBytes / l2EntrySize;
  for (let first = 0; first < clusters; first += perChunk) {
    const chunk = await writer.lend();
    const view = new DataView(chunk.buffer);
    const count = Math.min(clusters - first, perChunk);
    for (let index = 0; index < count; index++) {
      const at = index * l2EntrySize;
      const hostOffset = (firstData + first + index) * clusterSize;
      // Extended entries keep their subclusters unallocated: the backing file may show through.
      if (geometry.extendedL2) entries.setPreallocated(view, at, hostOffset);
      else entries.setNormal(view, at, hostOffset);
    }
    writer.write(chunk, count * l2EntrySize, layout.firstL2 * clusterSize + first * l2EntrySize);
  }
}

async function allocateData(
  file: StorageFile,
  dataFile: StorageFile | undefined,
  { clusterSize }: Geometry,
  layout: Layout,
  options: Qcow2CreateOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { preallocation, size } = options;
  if (dataFile !== undefined) await dataFile.truncate(size);
  if (preallocation !== 'falloc' && preallocation !== 'full') return;
  if (dataFile !== undefined) await preallocate(dataFile, 0, size, preallocation, signal);
  else {
    const start = layout.firstData * clusterSize;
    const length = layout.dataClusters * clusterSize;
    await preallocate(file, start, length, preallocation, signal);
  }
}
