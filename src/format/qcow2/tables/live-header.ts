/**
 * Changes of the header of an open image. Each is one write within the first sector, so that a power
 * cut leaves the old header or the new one, followed by a barrier. What may change is shared by all
 * threads that have the image open.
 */
import type { LongMutex } from '../../../engine/words/long-mutex.js';
import type { StorageFile } from '../../../storage/storage.js';
import { type HostOffset, asHostOffset } from '../layout/geometry.js';
import {
  type CompressionType,
  type Qcow2Header,
  Autoclear,
  Incompatible,
  featureWordsOffset,
  fieldsLength,
} from '../layout/header.js';
import {
  type BitmapsPlace,
  ExtensionType,
  bitmapsPlaceOf,
  encodeBitmapsPlace,
  findExtensionData,
  withBitmaps,
} from '../layout/header-extensions.js';

const sectorSize = 512;
const versionAt = 4;
/** Offset and length of the backing file's name, in 12 bytes. */
const backingNameAt = 8;
const sizeAt = 24;
const l1EntriesAt = 36;
const l1TableOffsetAt = 40;
const refcountTableOffsetAt = 48;
const snapshotCountAt = 60;
const snapshotsOffsetAt = 64;
const refcountOrderAt = 96;

/** Shared words of what a header may change to. */
const Word = {
  incompatible: 0,
  autoclear: 1,
  hasUnknownAutoclear: 2,
  /** A change has failed: the file may show it or not; by `Unsettled`. */
  unsettled: 3,
  version: 4,
  compatible: 5,
  refcountOrder: 6,
  isZstd: 7,
} as const;

/** What a change that failed may have left otherwise. */
const Unsettled = {
  nothing: 0,
  /** Fields that are known here. */
  fields: 1,
  /** The whole sector, of which there is a copy. */
  sector: 2,
} as const;

/** Bytes of the words; behind them is the place of the disk, as numbers of 64 bits. */
const wordBytes = 4 * Object.keys(Word).length;
/** Where a number of the disk's place lies behind the words. */
const Place = {
  size: 0,
  l1Offset: 1,
  l1Entries: 2,
  snapshotsOffset: 3,
  snapshotCount: 4,
  bitmapCount: 5,
  bitmapsOffset: 6,
  bitmapsBytes: 7,
} as const;

/** Where a copy of the first sector lies, behind the place. */
const sectorCopyAt = wordBytes + 8 * Object.keys(Place).length;

/** The size of the disk, and where its L1 table, the table of its snapshots and the directory of its bitmaps lie. */
export interface DiskPlace extends BitmapsPlace {
  /** Bytes. */
  readonly size: number;
  /** Host offset in bytes. */
  readonly l1Offset: HostOffset;
  readonly l1Entries: number;
  /** Host offset in bytes; 0 if there are no snapshots. */
  readonly snapshotsOffset: HostOffset;
  readonly snapshotCount: number;
}

/** What a header says of the format, besides names. */
export type HeaderFeatures = Pick<
  Qcow2Header,
  | 'version'
  | 'incompatibleFeatures'
  | 'compatibleFeatures'
  | 'autoclearFeatures'
  | 'hasUnknownAutoclear'
  | 'refcountOrder'
  | 'compressionType'
>;

/** Makes the shared words of the header of an image that is being opened. */
export function allocateHeaderWords(header: Qcow2Header): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(sectorCopyAt + sectorSize));
  new Float64Array(words.buffer, wordBytes).set(placeNumbers(placeOf(header)));
  words.set(featureWords(header));
  return words;
}

/** In the order of `Word`. */
function featureWords(header: HeaderFeatures): number[] {
  const words: number[] = [];
  words[Word.incompatible] = header.incompatibleFeatures;
  words[Word.autoclear] = header.autoclearFeatures;
  words[Word.hasUnknownAutoclear] = header.hasUnknownAutoclear ? 1 : 0;
  words[Word.unsettled] = 0;
  words[Word.version] = header.version;
  words[Word.compatible] = header.compatibleFeatures;
  words[Word.refcountOrder] = header.refcountOrder;
  words[Word.isZstd] = header.compressionType === 'zstd' ? 1 : 0;
  return words;
}

/** log2 of the width of a reference count in bits, as the words of a header have it. */
export function refcountOrderOf(words: Int32Array): number {
  return words[Word.refcountOrder];
}

/** Where the refcount table lies now. */
export interface RefcountTablePlace {
  /** Bytes. */
  readonly hostOffset: HostOffset;
  readonly clusters: number;
}

/** One thread's view of the header as it stands in the file. */
export class HeaderFile {
  readonly #file: StorageFile;
  readonly #mutex: LongMutex;
  readonly #words: Int32Array;
  /** By `Place`; changed while no queue runs a request. */
  readonly #place: Float64Array;
  /** The first sector before a change of all of it that has failed, or is under way. */
  readonly #sectorCopy: Uint8Array;
  readonly #opened: Qcow2Header;
  readonly #refcountTable: () => RefcountTablePlace;

  /**
   * @param opened the header as the image was opened with
   * @param words what `allocateHeaderWords` made
   */
  constructor(
    file: StorageFile,
    mutex: LongMutex,
    opened: Qcow2Header,
    words: Int32Array,
    refcountTable: () => RefcountTablePlace,
  ) {
    this.#file = file;
    this.#mutex = mutex;
    this.#opened = opened;
    this.#words = words;
    this.#place = new Float64Array(words.buffer, wordBytes, Object.keys(Place).length);
    this.#sectorCopy = new Uint8Array(words.buffer, sectorCopyAt);
    this.#refcountTable = refcountTable;
  }

  get header(): Qcow2Header {
    const { hostOffset, clusters } = this.#refcountTable();
    return {
      ...this.#opened,
      version: this.version,
      compatibleFeatures: Atomics.load(this.#words, Word.compatible),
      refcountOrder: refcountOrderOf(this.#words),
      compressionType: this.compressionType,
      size: this.#place[Place.size],
      l1TableOffset: this.#place[Place.l1Offset],
      l1Entries: this.#place[Place.l1Entries],
      snapshotsOffset: this.#place[Place.snapshotsOffset],
      snapshotCount: this.#place[Place.snapshotCount],
      incompatibleFeatures: Atomics.load(this.#words, Word.incompatible),
      autoclearFeatures: Atomics.load(this.#words, Word.autoclear),
      hasUnknownAutoclear: Atomics.load(this.#words, Word.hasUnknownAutoclear) !== 0,
      extensions: this.#extensions(),
      refcountTableOffset: hostOffset,
      refcountTableClusters: clusters,
    };
  }

  /** Version of the format: 2 has no feature bits, no zero clusters, and counts of 16 bits. */
  get version(): 2 | 3 {
    return Atomics.load(this.#words, Word.version) === 2 ? 2 : 3;
  }

  get compressionType(): CompressionType {
    return Atomics.load(this.#words, Word.isZstd) === 1 ? 'zstd' : 'zlib';
  }

  /** Where the directory of the bitmaps lies, if there are any that can be trusted. */
  get bitmapsPlace(): BitmapsPlace {
    return {
      bitmapCount: this.#place[Place.bitmapCount],
      bitmapsOffset: this.#place[Place.bitmapsOffset],
      bitmapsBytes: this.#place[Place.bitmapsBytes],
    };
  }

  /** The extensions as they were, but for that of the bitmaps where it has changed. */
  #extensions(): Qcow2Header['extensions'] {
    const { extensions } = this.#opened;
    const { bitmapsPlace } = this;
    const before = bitmapsPlaceOf(extensions);
    const isSame =
      before?.bitmapsOffset === bitmapsPlace.bitmapsOffset &&
      before.bitmapCount === bitmapsPlace.bitmapCount;
    return bitmapsPlace.bitmapCount === 0 || isSame
      ? extensions
      : withBitmaps(extensions, bitmapsPlace);
  }

  /** Whether the dirty bit says that reference counts on disk may be too low. */
  get isDirty(): boolean {
    return (Atomics.load(this.#words, Word.incompatible) & Incompatible.dirty) !== 0;
  }

  /** Sets or clears the dirty bit, durably. */
  async setDirty(dirty: boolean): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      if (this.isDirty === dirty) {
        await this.#settle();
        return;
      }
      const features = Atomics.load(this.#words, Word.incompatible) ^ Incompatible.dirty;
      await this.#changeSector((sector) => {
        sector.setUint32(featureWordsOffset + 4, features);
      });
      Atomics.store(this.#words, Word.incompatible, features);
    });
  }

  /** Sets the corrupt bit, durably; version 2 has none. */
  async setCorrupt(): Promise<void> {
    if (this.version !== 3) return;
    await this.#mutex.runExclusive(async () => {
      const features = Atomics.load(this.#words, Word.incompatible);
      if ((features & Incompatible.corrupt) !== 0) return;
      await this.#changeSector((sector) => {
        sector.setUint32(featureWordsOffset + 4, features | Incompatible.corrupt);
      });
      Atomics.store(this.#words, Word.incompatible, features | Incompatible.corrupt);
    });
  }

  /** Clears the autoclear bits that are not known, durably (specification, bytes 88 to 95). */
  async clearUnknownAutoclear(): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      if (Atomics.load(this.#words, Word.hasUnknownAutoclear) === 0) return;
      const known = Atomics.load(this.#words, Word.autoclear);
      await this.#changeSector((sector) => {
        sector.setUint32(featureWordsOffset + 16, 0);
        sector.setUint32(featureWordsOffset + 20, known);
      });
      Atomics.store(this.#words, Word.hasUnknownAutoclear, 0);
    });
  }

  /** Runs a section by which the image is made ready for changes, while no other thread does the same. */
  alone<Result>(section: () => Promise<Result>): Promise<Result> {
    return this.#mutex.runExclusive(section);
  }

  /**
   * Makes the header point at another refcount table, durably.
   *
   * @param order log2 of the width in bits of the counts it leads to, if that is another; the image has version 3
   */
  async moveRefcountTable(
    place: RefcountTablePlace,
    order = refcountOrderOf(this.#words),
  ): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      await this.#changeSector((sector) => {
        putRefcountTable(sector, place);
        if (this.version === 3) sector.setUint32(refcountOrderAt, order);
      });
      Atomics.store(this.#words, Word.refcountOrder, order);
    });
  }

  /** Makes the header point at another L1 table of the same length, and another refcount table, at once and durably. */
  async moveTables(l1Offset: HostOffset, place: RefcountTablePlace): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      const changed = { ...placeOf(this.header), l1Offset };
      await this.#changeSector((sector) => {
        putPlace(sector, changed);
        putRefcountTable(sector, place);
      });
      this.#place[Place.l1Offset] = l1Offset;
    });
  }

  /**
   * Puts another version, other features, extensions, and another place of the backing file's name into the first
   * sector, durably, while no queue runs a request; where the disk and its tables lie stays as it is.
   *
   * @param begin of the file as it is to be
   * @param features what that says
   * @param bitmaps where they lie from then on; left out, where they did
   */
  async changeBegin(
    begin: Uint8Array,
    features: HeaderFeatures,
    bitmaps?: BitmapsPlace,
  ): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      const changed = { ...placeOf(this.header), ...bitmaps };
      await this.#changeSector((sector) => {
        const bytes = new Uint8Array(sector.buffer);
        this.#sectorCopy.set(bytes);
        Atomics.store(this.#words, Word.unsettled, Unsettled.sector);
        bytes.set(begin.subarray(versionAt, backingNameAt + 12), versionAt);
        bytes.fill(0, featureWordsOffset);
        bytes.set(begin.subarray(featureWordsOffset, sectorSize), featureWordsOffset);
        putBitmaps(sector, changed);
      });
      for (const [word, value] of featureWords(features).entries()) {
        Atomics.store(this.#words, word, value);
      }
      this.#setPlace(changed);
    });
  }

  /** Gives the disk another size, L1 table or snapshot table, durably, while no queue runs a request. */
  async changeDisk(disk: Partial<DiskPlace>): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      const changed = { ...placeOf(this.header), ...disk };
      await this.#changeSector((sector) => {
        putPlace(sector, changed);
      });
      this.#setPlace(changed);
    });
  }

  /** Makes the file show what is known here, where a change that failed may have left it otherwise. */
  async settle(): Promise<void> {
    if (Atomics.load(this.#words, Word.unsettled) === Unsettled.nothing) return;
    await this.#mutex.runExclusive(() => this.#settle());
  }

  #setPlace(place: DiskPlace): void {
    this.#place.set(placeNumbers(place));
    const others = Atomics.load(this.#words, Word.autoclear) & ~Autoclear.bitmaps;
    const bitmaps = place.bitmapCount > 0 ? Autoclear.bitmaps : 0;
    Atomics.store(this.#words, Word.autoclear, others | bitmaps);
  }

  async #settle(): Promise<void> {
    if (Atomics.load(this.#words, Word.unsettled) === Unsettled.nothing) return;
    await this.#changeSector(() => undefined);
  }

  /** Rewrites the first sector; the caller holds the mutex. */
  async #changeSector(change: (sector: DataView) => void): Promise<void> {
    const { nothing, fields } = Unsettled;
    Atomics.compareExchange(this.#words, Word.unsettled, nothing, fields);
    await changeHeaderSector(this.#file, (sector) => {
      if (Atomics.load(this.#words, Word.unsettled) === Unsettled.sector) {
        new Uint8Array(sector.buffer).set(this.#sectorCopy);
      }
      const { version, incompatibleFeatures, compatibleFeatures, refcountOrder } = this.header;
      const { refcountTableOffset, refcountTableClusters } = this.header;
      putPlace(sector, placeOf(this.header));
      // Autoclear bits that are gone may stay so.
      if (version === 3) {
        sector.setUint32(featureWordsOffset + 4, incompatibleFeatures);
        sector.setUint32(featureWordsOffset + 12, compatibleFeatures);
        sector.setUint32(refcountOrderAt, refcountOrder);
      }
      const hostOffset = asHostOffset(refcountTableOffset);
      putRefcountTable(sector, { hostOffset, clusters: refcountTableClusters });
      change(sector);
    });
    Atomics.store(this.#words, Word.unsettled, nothing);
  }
}

function placeOf(header: Qcow2Header): DiskPlace {
  const { size, l1TableOffset, l1Entries, snapshotsOffset, snapshotCount } = header;
  return {
    size,
    l1Offset: asHostOffset(l1TableOffset),
    l1Entries,
    snapshotsOffset: asHostOffset(snapshotsOffset),
    snapshotCount,
    ...trustedBitmaps(header),
  };
}

/** The numbers of a place in the order of `Place`. */
function placeNumbers(place: DiskPlace): number[] {
  const { size, l1Offset, l1Entries, snapshotsOffset, snapshotCount } = place;
  const { bitmapCount, bitmapsOffset, bitmapsBytes } = place;
  const disk = [size, l1Offset, l1Entries, snapshotsOffset, snapshotCount];
  return [...disk, bitmapCount, bitmapsOffset, bitmapsBytes];
}

const noBitmaps: BitmapsPlace = { bitmapCount: 0, bitmapsOffset: 0, bitmapsBytes: 0 };

/** Where the bitmaps of an image lie that says of none that they cannot be trusted. */
function trustedBitmaps({ autoclearFeatures, extensions }: Qcow2Header): BitmapsPlace {
  const isTrusted = (autoclearFeatures & Autoclear.bitmaps) !== 0;
  return (isTrusted ? bitmapsPlaceOf(extensions) : undefined) ?? noBitmaps;
}

/** Where the first sector says where the bitmaps lie, if it does. */
function bitmapsFieldOf(sector: DataView): Uint8Array | undefined {
  const bytes = new Uint8Array(sector.buffer, sector.byteOffset, sector.byteLength);
  return findExtensionData(bytes, fieldsLength(sector), ExtensionType.bitmaps);
}

/** Says where bitmaps lie, and that they can be trusted; or, of none, that nothing of the kind can. */
function putBitmaps(sector: DataView, place: BitmapsPlace): void {
  if (sector.getUint32(versionAt) < 3) return;
  const autoclearAt = featureWordsOffset + 20;
  const autoclear = sector.getUint32(autoclearAt);
  if (place.bitmapCount === 0) {
    sector.setUint32(autoclearAt, (autoclear & ~Autoclear.bitmaps) >>> 0);
    return;
  }
  // Elsewhere in the header's cluster it is as it was.
  const field = bitmapsFieldOf(sector);
  if (field === undefined) return;
  field.set(encodeBitmapsPlace(place));
  sector.setUint32(autoclearAt, (autoclear | Autoclear.bitmaps) >>> 0);
}

function putPlace(sector: DataView, place: DiskPlace): void {
  sector.setBigUint64(sizeAt, BigInt(place.size));
  sector.setUint32(l1EntriesAt, place.l1Entries);
  sector.setBigUint64(l1TableOffsetAt, BigInt(place.l1Offset));
  sector.setUint32(snapshotCountAt, place.snapshotCount);
  sector.setBigUint64(snapshotsOffsetAt, BigInt(place.snapshotsOffset));
  putBitmaps(sector, place);
}

function putRefcountTable(sector: DataView, { hostOffset, clusters }: RefcountTablePlace): void {
  sector.setBigUint64(refcountTableOffsetAt, BigInt(hostOffset));
  sector.setUint32(refcountTableOffsetAt + 8, clusters);
}

/** Rewrites the first sector of an image, durably; nobody else may be doing so. */
export async function changeHeaderSector(
  file: StorageFile,
  change: (sector: DataView) => void,
): Promise<void> {
  const sector = new Uint8Array(sectorSize);
  await file.read(sector, 0);
  change(new DataView(sector.buffer));
  await file.write(sector, 0);
  await file.flush();
}
