/**
 * Writing a stream: grains are compressed side by side and appended in the order in which they were given;
 * their tables, the directory and the footer follow when the image is closed. Until then there is no image.
 */
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { Mutex } from 'async-mutex';
import type { StorageFile } from '../../storage/storage.js';
import { isZero } from '../../native/zero-scan.js';
import { unsupportedImage } from '../failures.js';
import type { BlockRun, GrowingMapping, Place } from '../mapped/mapping.js';
import { ReadBuffers, CompressedGrain } from './grain.js';
import { type VmdkLayout, sectorBytes } from './layout.js';
import { type NewHostedHeader, decodeHostedHeader, encodeHostedHeader } from './sparse-header.js';
import { encodeGrain, encodeStreamEnd, encodeTable } from './stream-markers.js';

const deflate = promisify(zlib.deflate) as (input: Uint8Array) => Promise<Uint8Array>;
const entryBytes = 4;

type Sparse = Extract<VmdkLayout['extents'][number], { kind: 'sparse' }>;

/** The mapping of a stream that holds nothing yet. @throws ERR_COWHERD_UNSUPPORTED for one that does */
export async function growingStream(extent: Sparse, file: StorageFile): Promise<GrowingMapping> {
  if (await hasGrains(extent, file)) {
    throw unsupportedImage(file.filename, 'streamOptimized VMDK images are written once, from new');
  }
  const header = new Uint8Array(sectorBytes);
  await file.read(header, 0);
  return new StreamMapping(extent, file, new DataView(header.buffer));
}

/** Whether anything is stored. One that was made before it is filled has tables, of nothing. */
async function hasGrains(extent: Sparse, file: StorageFile): Promise<boolean> {
  const directory = new DataView(new ArrayBuffer(extent.directoryEntries * entryBytes));
  await file.read(new Uint8Array(directory.buffer), extent.directoryOffset);
  const table = new Uint8Array(extent.tableEntries * entryBytes);
  for (let at = 0; at < directory.byteLength; at += entryBytes) {
    const sector = directory.getUint32(at, true);
    if (sector === 0) continue;
    await file.read(table, sector * sectorBytes);
    if (!isZero(table)) return true;
  }
  return false;
}

class StreamMapping implements GrowingMapping {
  readonly blockSize: number;
  readonly needsCompressedWrites = true;
  readonly #extent: Sparse;
  readonly #file: StorageFile;
  readonly #header: ReturnType<typeof decodeHostedHeader>;
  /** Sectors of the grains of each table that has any; 0 of those that are not there. */
  readonly #tables = new Map<number, Uint32Array>();
  readonly #appending = new Mutex();
  readonly #buffers = new ReadBuffers();
  /** Where the next part goes, in sectors. */
  #next: number;
  #hasChanged = false;

  constructor(extent: Sparse, file: StorageFile, header: DataView) {
    this.blockSize = extent.grainBytes;
    this.#extent = extent;
    this.#file = file;
    this.#header = decodeHostedHeader(header);
    this.#next = this.#header.overhead;
  }

  find(offset: number, length: number): Place {
    const { grainBytes, tableEntries, file } = this.#extent;
    const grain = Math.floor(offset / grainBytes);
    const within = offset - grain * grainBytes;
    const sector = this.#tables.get(Math.floor(grain / tableEntries))?.[grain % tableEntries] ?? 0;
    if (sector === 0) return { kind: 'unallocated', length: Math.min(length, grainBytes - within) };
    const size = Math.min(grainBytes, this.#extent.length - grain * grainBytes);
    const stored = {
      file,
      offset: sector * sectorBytes,
      likelyBytes: grainBytes,
      grainBytes,
      isMarked: true,
    };
    const chunk = new CompressedGrain(stored, this.#buffers, grain * grainBytes, size);
    return { kind: 'compressed', length: Math.min(length, size - within), chunk, within };
  }

  allocate(): Promise<BlockRun> {
    const why = 'streamOptimized VMDK images take whole grains, compressed';
    return Promise.reject(unsupportedImage(this.#file.filename, why));
  }

  link(): Promise<void> {
    return Promise.resolve();
  }

  async writeCompressed(block: number, data: Uint8Array): Promise<void> {
    let whole = data;
    if (data.length < this.blockSize) {
      whole = new Uint8Array(this.blockSize);
      whole.set(data);
    }
    const compressing = deflate(whole);
    compressing.catch(() => undefined);
    await this.#appending.runExclusive(async () => {
      const grainSectors = this.blockSize / sectorBytes;
      const bytes = encodeGrain(block * grainSectors, await compressing);
      const sector = await this.#append(bytes);
      const { tableEntries } = this.#extent;
      const number = Math.floor(block / tableEntries);
      const table = this.#tables.get(number) ?? new Uint32Array(tableEntries);
      table[block % tableEntries] = sector;
      this.#tables.set(number, table);
    });
  }

  /** Writes what comes next. @returns its first sector */
  async #append(bytes: Uint8Array): Promise<number> {
    if (!this.#hasChanged) {
      // What ends an empty stream is no end any more.
      this.#hasChanged = true;
      await this.#file.truncate(this.#next * sectorBytes);
      if (!this.#header.isInFooter) await this.#file.write(encodeHostedHeader(this.#asStream()), 0);
    }
    const sector = this.#next;
    const end = sector + bytes.length / sectorBytes;
    if (end > 0xffffffff) {
      const why = 'the image cannot grow any more: its tables count sectors in 32 bits';
      throw unsupportedImage(this.#file.filename, why);
    }
    await this.#file.write(bytes, sector * sectorBytes);
    this.#next = end;
    return sector;
  }

  /** The tables are written at the end. */
  takeChanges(): undefined {
    return undefined;
  }

  async close(): Promise<void> {
    if (!this.#hasChanged) return;
    const directory = new Uint32Array(this.#extent.directoryEntries);
    const numbers = [...this.#tables.keys()].sort((one, other) => one - other);
    for (const number of numbers) {
      // The table follows a sector that says what it is.
      directory[number] = (await this.#append(encodeTable(this.#tables.get(number)!))) + 1;
    }
    await this.#append(encodeStreamEnd(this.#asStream(), directory, this.#next));
  }

  /** The header of one whose directory follows the grains. */
  #asStream(): NewHostedHeader {
    const { capacity, grain, descriptorSize, tableEntries, overhead } = this.#header;
    return {
      isStream: true,
      hasZeroedGrains: this.#extent.hasZeroedGrains,
      capacity,
      grain,
      descriptorSize,
      tableEntries,
      spareDirectoryAt: 0,
      directoryAt: undefined,
      overhead,
    };
  }
}
