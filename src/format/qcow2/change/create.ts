/**
 * Writing a new, empty image: header, refcount structures and L1 table, and with preallocation the
 * L2 tables and data clusters. Every byte of it is written, since a device holds what it held. The
 * header goes last, so that what was cut off is no image at all.
 *
 *     [ header ][ refcount table ][ refcount blocks ][ L1 table ][ header of LUKS ][ L2 tables ][ data … ]
 *                                                                                  └─ preallocation only ─┘
 */
import { CowherdError, problemWith } from '../../../errors.js';
import { maxL1TableBytes, maxRefcountTableBytes } from '../../../limits.js';
import { preallocate, writeZeroes } from '../../../storage/preallocate.js';
import type { StorageFile } from '../../../storage/storage.js';
import { createRaw } from '../../raw/create.js';
import type { EncryptOptions } from '../../create-options.js';
import {
  type NewLuksHeader,
  decideLuksHeader,
  luksAreaBytes,
  makeLuksHeader,
} from '../../encryption/new-header.js';
import { encryptPrefix, encryptionPointer } from '../contents/encryption.js';
import { Geometry, asClusterIndex } from '../layout/geometry.js';
import {
  Autoclear,
  Compatible,
  type CompressionType,
  CryptMethod,
  Incompatible,
  encodeHeader,
  extensionsFor,
} from '../layout/header.js';
import { L2EntryView } from '../layout/l2-entry.js';
import { refcountWidth } from '../layout/refcount-width.js';

/** Bytes written at a time, and how many such writes are under way. */
const chunkBytes = 4 * 1024 * 1024;
const writesAhead = 4;
const copiedHigh = 0x80000000;
/** The largest multiple of a sector that is a safe integer. */
const maxDiskBytes = Number.MAX_SAFE_INTEGER - 511;

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
  /** How the disk is encrypted; its format is decided. */
  readonly encrypt?: EncryptOptions | undefined;
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
  readonly luks: number;
  readonly luksClusters: number;
  readonly firstL2: number;
  readonly firstData: number;
  readonly total: number;
}

/** All that decides what is written. */
interface Plan {
  readonly geometry: Geometry;
  readonly layout: Layout;
  readonly options: Qcow2CreateOptions;
  /** Whether the data lie in a file of their own. */
  readonly external: boolean;
  /** Whether storage that was not written to reads as zeroes: of the image, and of what holds the data. */
  readonly zeroInit: boolean;
  readonly dataZeroInit: boolean;
}

/**
 * Makes an empty file, or a device whatever it holds, into an image, and so the external data file if
 * there is one.
 *
 * @throws ERR_COWHERD_INVALID_ARGUMENT if the disk is too large for the cluster size,
 *   ERR_COWHERD_UNSUPPORTED for what a device cannot do, or the signal's reason
 */
export async function createQcow2(
  file: StorageFile,
  dataFile: StorageFile | undefined,
  options: Qcow2CreateOptions,
  signal?: AbortSignal,
): Promise<void> {
  const geometry = new Geometry(options);
  const external = dataFile !== undefined;
  const plan: Plan = {
    geometry,
    layout: planLayout(geometry, options, external),
    options,
    external,
    zeroInit: file.limits.zeroInit,
    dataZeroInit: (dataFile ?? file).limits.zeroInit,
  };
  await refuseUnfit(file, plan);
  const luks = options.encrypt?.format === 'luks' ? await makeLuks(options.encrypt) : undefined;
  await createDataFile(dataFile, options, signal);
  const writer = new ChunkWriter(file, signal);
  // What a device held is no image from here on.
  await writeTable(writer, 0, geometry.clusterSize, noEntries);
  await writer.finish();
  if (!plan.zeroInit) await file.flush();
  await writeRefcountTable(writer, plan);
  await writeRefcountBlocks(writer, plan);
  await writeL1Table(writer, plan);
  if (luks !== undefined) await writeLuks(writer, plan, luks);
  await writeL2Tables(writer, plan);
  await writer.finish();
  if (!external) await allocateData(file, plan, signal);
  await file.flush();
  await file.write(headerBytes(plan), 0);
  await file.flush();
  await dataFile?.flush();
}

/** @throws ERR_COWHERD_INVALID_ARGUMENT for a disk that its largest L1 table cannot map */
export function refuseTooLarge(options: Qcow2CreateOptions): void {
  if (new Geometry(options).l1Entries(options.size) * 8 > maxL1TableBytes) throw tooLarge();
}

/** Bytes of a disk that an L1 table of one cluster maps, in whole sectors as numbers tell them. */
export function oneL1ClusterBytes(
  options: Pick<Qcow2CreateOptions, 'clusterBits' | 'refcountOrder' | 'extendedL2'>,
): number {
  const { clusterSize, tableReach } = new Geometry(options);
  return Math.min((clusterSize / 8) * tableReach, maxDiskBytes);
}

function tooLarge(): CowherdError {
  return new CowherdError(
    'ERR_COWHERD_INVALID_ARGUMENT',
    "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
  );
}

/** Refuses what a device cannot do, before anything is written to it. */
async function refuseUnfit(file: StorageFile, { geometry, layout, options }: Plan): Promise<void> {
  const { preallocation } = options;
  if (!file.limits.blockDevice || layout.dataClusters === 0) return;
  let reason: string | undefined;
  if (preallocation === 'falloc' || preallocation === 'full') {
    reason = `Failed to resize underlying file: Preallocation mode '${preallocation}' unsupported for this non-regular file`;
  } else if (layout.total * geometry.clusterSize > (await file.size())) {
    reason = 'Cannot grow device files';
  }
  if (reason === undefined) return;
  const { filename } = file;
  throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, `Could not resize image: ${reason}`);
}

function planLayout(geometry: Geometry, options: Qcow2CreateOptions, external: boolean): Layout {
  const { clusterSize, refcountsPerBlock } = geometry;
  refuseTooLarge(options);
  const l1Entries = geometry.l1Entries(options.size);
  const preallocated = options.preallocation !== 'off';
  const guestClusters = geometry.clusters(options.size);
  const l1Clusters = geometry.clusters(l1Entries * 8);
  const l2Tables = preallocated ? l1Entries : 0;
  const luksClusters = luksClustersOf(geometry, options);
  const dataClusters = preallocated && !external ? guestClusters : 0;
  let blocks = 1;
  let tableClusters = 1;
  for (;;) {
    const total = 1 + tableClusters + blocks + l1Clusters + luksClusters + l2Tables + dataClusters;
    const neededBlocks = Math.ceil(total / refcountsPerBlock);
    const neededTable = geometry.clusters(neededBlocks * 8);
    if (neededBlocks === blocks && neededTable === tableClusters) break;
    blocks = neededBlocks;
    tableClusters = neededTable;
  }
  if (tableClusters * clusterSize > maxRefcountTableBytes) {
    throw tooLarge();
  }
  const firstBlock = 1 + tableClusters;
  const l1 = firstBlock + blocks;
  const luks = l1 + l1Clusters;
  const firstL2 = luks + luksClusters;
  const firstData = firstL2 + l2Tables;
  return {
    tableClusters,
    blocks,
    l1Clusters,
    l2Tables,
    dataClusters,
    firstBlock,
    l1,
    luks,
    luksClusters,
    firstL2,
    firstData,
    total: firstData + dataClusters,
  };
}

function headerBytes({ options, layout, geometry }: Plan): Uint8Array {
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
    cryptMethod: cryptMethodOf(options),
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
    extensions: extensionsFor(
      options.version,
      options.backingFormat,
      options.dataFileName,
      encryptionHeaderOf(options, layout, clusterSize),
    ),
  });
}

function cryptMethodOf({ encrypt }: Qcow2CreateOptions): number {
  if (encrypt === undefined) return CryptMethod.none;
  return encrypt.format === 'luks' ? CryptMethod.luks : CryptMethod.aes;
}

/** What the header says of where that of LUKS lies. */
function encryptionHeaderOf(
  { encrypt }: Qcow2CreateOptions,
  { luks, luksClusters }: Layout,
  clusterSize: number,
): Uint8Array | undefined {
  if (encrypt === undefined || luksClusters === 0) return undefined;
  return encryptionPointer(luks * clusterSize, luksAreaBytes(decideLuksHeader(encrypt)));
}

function luksClustersOf(geometry: Geometry, { encrypt }: Qcow2CreateOptions): number {
  if (encrypt?.format !== 'luks') return 0;
  return geometry.clusters(luksAreaBytes(decideLuksHeader(encrypt)));
}

/** A header of LUKS, whose key nobody needs before the image is opened. */
async function makeLuks(encrypt: EncryptOptions): Promise<NewLuksHeader> {
  const made = await makeLuksHeader(encrypt, encryptPrefix);
  made.masterKey.fill(0);
  return made;
}

async function writeLuks(
  writer: ChunkWriter,
  { geometry, layout }: Plan,
  { parts }: NewLuksHeader,
): Promise<void> {
  const { clusterSize } = geometry;
  const { luks, luksClusters } = layout;
  await writeTable(writer, luks * clusterSize, luksClusters * clusterSize, noEntries);
  await writer.finish();
  for (const { offset, bytes } of parts) {
    const chunk = await writer.lend();
    chunk.set(bytes);
    writer.write(chunk, bytes.length, luks * clusterSize + offset);
  }
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

/** The entries of a table: how many, of how many bytes, and what each holds. */
interface Entries {
  readonly count: number;
  readonly bytes: number;
  readonly put: (view: DataView, at: number, index: number) => void;
}

const noEntries: Entries = { count: 0, bytes: 8, put: () => undefined };

/** Writes the entries of a table, and zeroes up to its length in bytes. */
async function writeTable(
  writer: ChunkWriter,
  hostOffset: number,
  length: number,
  { count, bytes, put }: Entries,
): Promise<void> {
  for (let done = 0; done < length; done += chunkBytes) {
    const chunk = await writer.lend();
    const view = new DataView(chunk.buffer);
    const part = Math.min(length - done, chunkBytes);
    const first = done / bytes;
    const entries = Math.max(0, Math.min(count - first, part / bytes));
    for (let index = 0; index < entries; index++) put(view, index * bytes, first + index);
    chunk.fill(0, entries * bytes, part);
    writer.write(chunk, part, hostOffset + done);
  }
}

/** Entries that point at consecutive clusters. */
function pointers(count: number, firstCluster: number, clusterSize: number, flag: number): Entries {
  return {
    count,
    bytes: 8,
    put: (view, at, index) => {
      const hostOffset = (firstCluster + index) * clusterSize;
      view.setUint32(at, flag + Math.floor(hostOffset / 0x100000000));
      view.setUint32(at + 4, hostOffset % 0x100000000);
    },
  };
}

async function writeRefcountTable(
  writer: ChunkWriter,
  { geometry: { clusterSize }, layout }: Plan,
): Promise<void> {
  const { blocks, firstBlock, tableClusters } = layout;
  const entries = pointers(blocks, firstBlock, clusterSize, 0);
  await writeTable(writer, clusterSize, tableClusters * clusterSize, entries);
}

async function writeL1Table(
  writer: ChunkWriter,
  { geometry, layout, options, zeroInit }: Plan,
): Promise<void> {
  const { clusterSize } = geometry;
  const { l1, l1Clusters, l2Tables, firstL2 } = layout;
  // As QEMU has it, a file without preallocation ends with the last entry.
  const length = zeroInit ? geometry.l1Entries(options.size) * 8 : l1Clusters * clusterSize;
  const entries = pointers(l2Tables, firstL2, clusterSize, copiedHigh);
  await writeTable(writer, l1 * clusterSize, length, entries);
}

async function writeRefcountBlocks(writer: ChunkWriter, { geometry, layout }: Plan): Promise<void> {
  const width = refcountWidth(geometry.refcountOrder);
  const perChunk = (chunkBytes * 8) / geometry.refcountBits;
  const bytesFor = (counts: number): number => Math.ceil((counts * geometry.refcountBits) / 8);
  const start = layout.firstBlock * geometry.clusterSize;
  const length = layout.blocks * geometry.clusterSize;
  // Chunks but the last are alike: every cluster counted once.
  const counts = Math.min(layout.total, perChunk);
  const full = new Uint8Array(bytesFor(counts));
  const view = new DataView(full.buffer);
  for (let index = 0; index < counts; index++) width.set(view, 0, index, 1);
  for (let done = 0; done < length; done += chunkBytes) {
    const chunk = await writer.lend();
    const part = Math.min(length - done, chunkBytes);
    const left = Math.max(0, Math.min(layout.total - (done / chunkBytes) * perChunk, perChunk));
    chunk.set(full);
    const tail = new DataView(chunk.buffer);
    for (let index = left; index < Math.min(Math.ceil(left / 8) * 8, counts); index++) {
      width.set(tail, 0, index, 0);
    }
    chunk.fill(0, bytesFor(left), part);
    writer.write(chunk, part, start + done);
  }
}

async function writeL2Tables(writer: ChunkWriter, plan: Plan): Promise<void> {
  const { geometry, layout, options, external } = plan;
  const { clusterSize, l2EntrySize } = geometry;
  const view = new L2EntryView(geometry, external);
  const firstData = external ? 0 : layout.firstData;
  const readsAsZeroes = mustReadAsZeroes(plan);
  const entries: Entries = {
    count: geometry.clusters(options.size),
    bytes: l2EntrySize,
    put: (table, at, index) => {
      const hostOffset = geometry.startOf(asClusterIndex(firstData + index));
      // Extended entries keep their subclusters unallocated: the backing file may show through.
      if (geometry.extendedL2) view.setPreallocated(table, at, hostOffset);
      else view.setNormal(table, at, hostOffset);
      if (readsAsZeroes) view.setZero(table, at, true);
    },
  };
  const length = layout.l2Tables * clusterSize;
  await writeTable(writer, layout.firstL2 * clusterSize, length, entries);
}

/** Whether entries say that their clusters read as zeroes, since what these hold is anybody's. */
function mustReadAsZeroes({ geometry, options, dataZeroInit }: Plan): boolean {
  const canSay = options.version === 3 && !geometry.extendedL2 && !options.dataFileRaw;
  // Zeroes of the file are no zeroes of an encrypted disk.
  return canSay && (!dataZeroInit || options.encrypt !== undefined);
}

async function allocateData(
  file: StorageFile,
  plan: Plan,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { geometry, layout, options, dataZeroInit } = plan;
  const { preallocation } = options;
  const start = layout.firstData * geometry.clusterSize;
  const length = layout.dataClusters * geometry.clusterSize;
  if (length === 0) return;
  if (preallocation === 'falloc' || preallocation === 'full') {
    // This makes the file longer too, so that a host that cannot reserve writes what is added.
    await preallocate(file, start, length, preallocation, signal);
  } else if (dataZeroInit) {
    await file.truncate(start + length);
  } else if (options.version === 2) {
    // Its entries cannot say that clusters read as zeroes.
    await writeZeroes(file, start, length, signal);
  }
}

/** The data file is a raw disk; one that is to be read as such has to hold the zeroes. */
async function createDataFile(
  dataFile: StorageFile | undefined,
  { size, preallocation, dataFileRaw }: Qcow2CreateOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (dataFile === undefined) return;
  await createRaw(dataFile, size, preallocation, signal);
  if (dataFileRaw && !dataFile.limits.zeroInit) await writeZeroes(dataFile, 0, size, signal);
}
