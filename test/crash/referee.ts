/**
 * Judges an image by its bytes alone. It reads header, tables and counts by itself, from the
 * specification, and shares no code with the engine that it judges.
 */
import { inflateRawSync } from 'node:zlib';
import { type Mark, sectorSize } from '../schedules/history.js';
import { type StoredBitmaps, bitmapsOf } from '../support/stored-bitmaps.js';
import { markAt } from './marks.js';

const two32 = 0x100000000;

/** What a referee found. */
export interface Verdict {
  /** What no power cut may leave; empty if the state is in order. */
  readonly problems: readonly string[];
  readonly leaks: number;
  /** Whether the image asks for its counts to be rebuilt. */
  readonly dirty: boolean;
  /** Host offset of the refcount table in bytes. */
  readonly refcountTable: number;
}

/** What the files of an image hold; the buffers may be longer than the files. */
export interface JudgedFiles {
  readonly image: Uint8Array;
  readonly imageSize: number;
  readonly data: Uint8Array | undefined;
  readonly dataSize: number;
}

/** What the guest was promised. */
export interface JudgedContent {
  /** The marks that each sector may show. */
  readonly permitted: readonly (readonly Mark[])[];
  /** What the backing file holds of each sector. */
  readonly backing: (sector: number) => Mark;
  /** What each sector shows in the first snapshot. */
  readonly snapshotMarks: Uint32Array | undefined;
  /** Whether snapshots are taken, gone back to or given up. */
  readonly hasExclusiveChanges?: boolean | undefined;
  /** What each sector showed when the bitmap `since` was begun, if it is there. */
  readonly since?: Uint32Array | undefined;
  /** Whether the image was closed, so that no bitmap is in use. */
  readonly isClosed?: boolean | undefined;
}

/** Uses of a cluster that exclude each other. */
const Use = {
  header: 1,
  refcountTable: 2,
  refcountBlock: 4,
  l1: 8,
  l2: 16,
  snapshots: 32,
  data: 64,
  compressed: 128,
  bitmaps: 256,
} as const;

const Place = { zero: -1, below: -2, compressed: -3 } as const;
const mostProblems = 8;
const inflated = new Map<string, Uint8Array>();

/** One judgement of one image. */
export class Referee {
  readonly #files: JudgedFiles;
  readonly #view: DataView;
  readonly #problems: string[] = [];
  readonly #clusterSize: number;
  readonly #clusterBits: number;
  readonly #sectorsPerCluster: number;
  readonly #clusters: number;
  readonly #references: Uint16Array;
  readonly #uses: Uint16Array;
  readonly #version3: boolean;
  readonly #extended: boolean;
  readonly #external: boolean;
  /** Clusters of the active tables' entries, negative without the COPIED flag. */
  readonly #active: number[] = [];

  constructor(files: JudgedFiles) {
    this.#files = files;
    const { image } = files;
    this.#view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    this.#clusterBits = this.#view.getUint32(20);
    this.#clusterSize = 2 ** this.#clusterBits;
    this.#sectorsPerCluster = this.#clusterSize / sectorSize;
    // Version 2 has no feature bits, and counts of 16 bits.
    this.#version3 = this.#view.getUint32(4) === 3;
    const features = this.#version3 ? this.#view.getUint32(76) : 0;
    this.#extended = (features & 16) !== 0;
    this.#external = (features & 4) !== 0;
    this.#clusters = Math.ceil(image.length / this.#clusterSize) + 1;
    this.#references = new Uint16Array(this.#clusters);
    this.#uses = new Uint16Array(this.#clusters);
  }

  judge(content: JudgedContent): Verdict {
    const view = this.#view;
    if (view.getUint32(0) !== 0x514649fb || this.#clusterBits < 9 || this.#clusterBits > 21) {
      return { problems: ['no qcow2 header'], leaks: 0, dirty: false, refcountTable: 0 };
    }
    const features = this.#version3 ? view.getUint32(76) : 0;
    const dirty = (features & 1) !== 0;
    const unknown = features & ~(1 | 4 | 16);
    if (unknown !== 0) this.#object(`unknown incompatible features ${unknown}`);
    // Without lazy counts it is set while a snapshot is worked on: flags may say less than counts do.
    const isLazy = dirty && (view.getUint32(84) & 1) !== 0;
    if (dirty && !isLazy && !content.hasExclusiveChanges)
      this.#object('dirty without lazy refcounts');
    this.#use(0, this.#clusterSize, Use.header, 'the header');
    const sectors = this.#offset(24) / sectorSize;
    const l1 = this.#walk(this.#offset(40), view.getUint32(36), sectors, true);
    const shown = this.#compare(l1, content.permitted, content.backing, '');
    this.#judgeSnapshots(sectors, content);
    this.#judgeBitmaps(shown, content);
    const refcountTable = this.#offset(48);
    const tableBytes = view.getUint32(56) * this.#clusterSize;
    const leaks = this.#judgeCounts(refcountTable, tableBytes, isLazy, dirty && !isLazy);
    return { problems: this.#problems, leaks, dirty, refcountTable };
  }

  #offset(at: number): number {
    return this.#view.getUint32(at) * two32 + this.#view.getUint32(at + 4);
  }

  #object(problem: string): void {
    if (this.#problems.length < mostProblems) this.#problems.push(problem);
  }

  /** Counts a reference to each cluster of a range. @returns false if it cannot be looked at */
  #use(offset: number, length: number, use: number, name: string): boolean {
    const { imageSize } = this.#files;
    if (offset + length - imageSize >= this.#clusterSize) {
      this.#object(`${name} lies beyond the file: ${length} bytes at ${offset} of ${imageSize}`);
      return false;
    }
    const first = Math.floor(offset / this.#clusterSize);
    const end = Math.ceil((offset + length) / this.#clusterSize);
    for (let cluster = first; cluster < end; cluster++) {
      this.#references[cluster]++;
      this.#uses[cluster] |= use;
    }
    return true;
  }

  /** Walks an L1 table. @returns where the bytes of each guest sector are, or how they are stored */
  #walk(offset: number, entries: number, sectors: number, active: boolean): WalkedDisk {
    const entrySize = this.#extended ? 16 : 8;
    const perTable = this.#clusterSize / entrySize;
    const places = new Int32Array(sectors).fill(Place.below);
    const walked: WalkedDisk = { places, compressed: new Map() };
    const needed = Math.ceil(sectors / this.#sectorsPerCluster / perTable);
    if (active && entries < needed)
      this.#object(`the L1 table has ${entries} of ${needed} entries`);
    if (!this.#use(offset, entries * 8, Use.l1, 'an L1 table')) return walked;
    for (let index = 0; index < entries; index++) {
      const high = this.#view.getUint32(offset + index * 8);
      const low = this.#view.getUint32(offset + index * 8 + 4);
      const table = (high & 0x00ffffff) * two32 + ((low & 0xfffffe00) >>> 0);
      if ((high & 0x7f000000) !== 0 || (low & 0x1ff) !== 0 || table % this.#clusterSize !== 0) {
        this.#object(`L1 entry ${index} is no entry`);
      } else if (table !== 0) {
        if (!this.#use(table, this.#clusterSize, Use.l2, `the L2 table of L1 entry ${index}`))
          continue;
        if (active) this.#noteActive(table, high < 0x80000000);
        this.#walkTable(table, index * perTable, perTable, entrySize, walked, active);
      }
    }
    return walked;
  }

  #noteActive(hostOffset: number, shared: boolean): void {
    const cluster = hostOffset / this.#clusterSize;
    this.#active.push(shared ? -cluster : cluster);
  }

  #walkTable(
    table: number,
    firstCluster: number,
    entries: number,
    entrySize: number,
    walked: WalkedDisk,
    active: boolean,
  ): void {
    const view = this.#view;
    for (let index = 0; index < entries; index++) {
      const at = table + index * entrySize;
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      const bits = this.#extended ? view.getUint32(at + 8) + view.getUint32(at + 12) : 0;
      if (high === 0 && low === 0 && bits === 0) continue;
      const cluster = firstCluster + index;
      const name = `guest cluster ${cluster}`;
      if ((high & 0x40000000) !== 0) {
        this.#useCompressed(high, low, cluster, walked, name);
        continue;
      }
      const host = (high & 0x00ffffff) * two32 + ((low & 0xfffffe00) >>> 0);
      if ((high & 0x3f000000) !== 0 || (low & 0x1fe) !== 0 || host % this.#clusterSize !== 0) {
        this.#object(`the entry of ${name} is no entry`);
        continue;
      }
      const copied = high >= 0x80000000;
      if (this.#external) {
        if (host !== 0 && host !== cluster * this.#clusterSize) {
          this.#object(`${name} is elsewhere in the data file`);
        }
      } else if (host !== 0) {
        if (!this.#use(host, this.#clusterSize, Use.data, name)) continue;
        if (active) this.#noteActive(host, !copied);
      }
      const has = host !== 0 || (this.#external && copied);
      this.#placeCluster(walked.places, cluster, host, has, low, at);
    }
  }

  #placeCluster(
    places: Int32Array,
    cluster: number,
    host: number,
    has: boolean,
    low: number,
    at: number,
  ): void {
    const perCluster = this.#sectorsPerCluster;
    const first = cluster * perCluster;
    const end = Math.min(first + perCluster, places.length);
    const zero = this.#extended ? this.#view.getUint32(at + 8) : -(low & 1);
    const allocated = this.#extended ? this.#view.getUint32(at + 12) : -1;
    if (this.#extended && (zero & allocated) !== 0) {
      this.#object(`guest cluster ${cluster} has subclusters that are zero and written`);
    }
    for (let sector = first; sector < end; sector++) {
      const bit = Math.floor(((sector - first) * 32) / perCluster);
      if (((zero >>> bit) & 1) !== 0) places[sector] = Place.zero;
      else if (has && ((allocated >>> bit) & 1) !== 0) {
        places[sector] = host / sectorSize + sector - first;
      }
    }
  }

  #useCompressed(
    high: number,
    low: number,
    cluster: number,
    walked: WalkedDisk,
    name: string,
  ): void {
    const shift = 62 - (this.#clusterBits - 8) - 32;
    const offset = (high & (2 ** shift - 1)) * two32 + low;
    const more = (high & 0x3fffffff) >>> shift;
    const length = (more + 1) * sectorSize - (low % sectorSize);
    if (high >= 0x80000000) this.#object(`${name} is compressed and has the COPIED flag`);
    if (!this.#use(offset, length, Use.compressed, name)) return;
    walked.compressed.set(cluster, { offset, length });
    const first = cluster * this.#sectorsPerCluster;
    walked.places.fill(Place.compressed, first, first + this.#sectorsPerCluster);
  }

  #judgeSnapshots(sectors: number, content: JudgedContent): void {
    const count = this.#view.getUint32(60);
    const start = this.#offset(64);
    let at = start;
    for (let index = 0; index < count; index++) {
      const view = this.#view;
      const walked = this.#walk(this.#offset(at), view.getUint32(at + 8), sectors, false);
      const { snapshotMarks } = content;
      if (snapshotMarks !== undefined) {
        const permitted = Array.from(snapshotMarks, (mark) => [mark]);
        this.#compare(walked, permitted, content.backing, ' of the snapshot');
      }
      at += 40 + view.getUint32(at + 36) + view.getUint16(at + 12) + view.getUint16(at + 14);
      at = Math.ceil(at / 8) * 8;
    }
    if (at > start) this.#use(start, at - start, Use.snapshots, 'the snapshot table');
  }

  /** A bitmap that is not marked as being in use has every sector that is not what it was. */
  #judgeBitmaps(
    shown: readonly (Mark | undefined)[],
    { since, isClosed = false }: JudgedContent,
  ): void {
    let stored: StoredBitmaps;
    try {
      stored = bitmapsOf(this.#files.image.subarray(0, this.#files.imageSize));
    } catch (error) {
      this.#object(`the bitmaps: ${(error as Error).message}`);
      return;
    }
    for (const { offset, length } of stored.places) {
      this.#use(offset, length, Use.bitmaps, 'what belongs to a bitmap');
    }
    if (isClosed && stored.bitmaps.some(({ inUse }) => inUse)) {
      this.#object('closed, and yet a bitmap is in use');
    }
    if (since === undefined) return;
    const bitmap = stored.bitmaps.find(({ name }) => name === 'since');
    if (bitmap === undefined) this.#object('the bitmap is not there');
    if (bitmap?.dirty === undefined) return;
    const dirty = new Set(bitmap.dirty);
    for (const [sector, mark] of since.entries()) {
      const granule = Math.floor((sector * sectorSize) / bitmap.granularity);
      if (shown[sector] !== mark && !dirty.has(granule)) {
        this.#object(`sector ${sector} has changed, and the bitmap says nothing of it`);
      }
    }
  }

  /** Compares what sectors show with what they may show. @returns what they show */
  #compare(
    walked: WalkedDisk,
    permitted: readonly (readonly Mark[])[],
    backing: (sector: number) => Mark,
    where: string,
  ): readonly (Mark | undefined)[] {
    const shown: (Mark | undefined)[] = [];
    for (let sector = 0; sector < walked.places.length; sector++) {
      // What a larger disk has more reads as zeroes.
      const marks = sector < permitted.length ? permitted[sector] : [0];
      const place = walked.places[sector];
      let found: Mark | undefined;
      if (place === Place.zero) found = 0;
      else if (place === Place.below) found = backing(sector);
      else if (place === Place.compressed) found = this.#inflatedMark(walked, sector);
      else if (this.#external) found = markAt(this.#files.data!, place * sectorSize, sector);
      else found = markAt(this.#files.image, place * sectorSize, sector);
      shown.push(found);
      if (found === undefined || !marks.includes(found)) {
        const what = found === undefined ? 'no mark' : `mark ${found}`;
        this.#object(`sector ${sector}${where} shows ${what}, permitted: ${marks.join(', ')}`);
      }
    }
    return shown;
  }

  #inflatedMark({ compressed }: WalkedDisk, sector: number): Mark | undefined {
    const cluster = Math.floor(sector / this.#sectorsPerCluster);
    const { offset, length } = compressed.get(cluster)!;
    const bytes = inflate(this.#files.image.subarray(offset, offset + length), this.#clusterSize);
    return bytes && markAt(bytes, (sector % this.#sectorsPerCluster) * sectorSize, sector);
  }

  /** Compares the counts with the references. @returns how many clusters are leaked */
  #judgeCounts(table: number, length: number, isLazy: boolean, flagsMayBeClear: boolean): number {
    if (!this.#use(table, length, Use.refcountTable, 'the refcount table')) return 0;
    const bits = this.#version3 ? 2 ** this.#view.getUint32(96) : 16;
    const perBlock = (this.#clusterSize * 8) / bits;
    const blocks: number[] = [];
    for (let block = 0; block < length / 8; block++) {
      const offset = this.#offset(table + block * 8);
      const name = `refcount block ${block}`;
      if (offset % this.#clusterSize !== 0) this.#object(`${name} is misaligned`);
      else if (offset !== 0 && offset >= this.#files.imageSize) {
        this.#object(`${name} lies beyond the file`);
      } else if (offset !== 0) {
        this.#use(offset, this.#clusterSize, Use.refcountBlock, name);
        blocks[block] = offset;
      }
    }
    const count = (cluster: number): number => {
      const offset = blocks[Math.floor(cluster / perBlock)] as number | undefined;
      return offset === undefined ? 0 : this.#countIn(offset, cluster % perBlock, bits);
    };
    let leaks = 0;
    const fileClusters = Math.ceil(this.#files.imageSize / this.#clusterSize);
    for (let cluster = 0; cluster < this.#clusters; cluster++) {
      const references = this.#references[cluster];
      const use = this.#uses[cluster];
      if ((use & (use - 1)) !== 0) this.#object(`cluster ${cluster} has two uses: ${use}`);
      const exclusive = Use.l2 | Use.data | Use.compressed;
      if (references > 1 && (use & exclusive) === 0) this.#object(`cluster ${cluster} is shared`);
      const counted = count(cluster);
      if (counted < references && !isLazy) {
        this.#object(`cluster ${cluster} has ${references} references, ${counted} are counted`);
      }
      if (counted > references && cluster < fileClusters) leaks++;
    }
    for (const entry of this.#active) {
      const cluster = Math.abs(entry);
      const references = this.#references[cluster];
      const counted = isLazy ? references : count(cluster);
      const isRight = flagsMayBeClear || (counted === 1) === entry > 0;
      if (!isRight) {
        this.#object(
          `cluster ${cluster} is counted ${counted} times, COPIED is ${entry > 0 ? 'set' : 'clear'}`,
        );
      }
      if (entry > 0 && references > 1) this.#object(`cluster ${cluster} is shared, but COPIED`);
    }
    return leaks;
  }

  #countIn(block: number, index: number, bits: number): number {
    const view = this.#view;
    if (bits === 64) return this.#offset(block + index * 8);
    if (bits === 32) return view.getUint32(block + index * 4);
    if (bits === 16) return view.getUint16(block + index * 2);
    const at = index * bits;
    return (view.getUint8(block + (at >>> 3)) >>> (at % 8)) & (2 ** bits - 1);
  }
}

/** What an L1 table maps. */
interface WalkedDisk {
  /** For each guest sector, the sector of the file with its bytes, or a `Place`. */
  readonly places: Int32Array;
  /** Bytes of compressed guest clusters. */
  readonly compressed: Map<number, { readonly offset: number; readonly length: number }>;
}

/** Inflates a cluster; undefined if that is not what the bytes are. */
function inflate(bytes: Uint8Array, clusterSize: number): Uint8Array | undefined {
  const key = Buffer.from(bytes).toString('latin1');
  let cluster = inflated.get(key);
  if (cluster === undefined) {
    try {
      cluster = inflateRawSync(bytes, { maxOutputLength: clusterSize });
    } catch {
      return undefined;
    }
    if (inflated.size > 5000) inflated.clear();
    inflated.set(key, cluster);
  }
  return cluster;
}

/** Bytes that a backing file of marked sectors holds are known by their mark. */
export function markedBelow(backedSectors: number, mark: Mark): (sector: number) => Mark {
  return (sector) => (sector < backedSectors ? mark : 0);
}
