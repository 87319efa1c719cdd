/**
 * Changes of the header of an open image. Each is one write within the first sector, so that a power
 * cut leaves the old header or the new one, followed by a barrier.
 */
import { LongMutex } from '../../engine/long-mutex.js';
import type { StorageFile } from '../../storage/storage.js';
import { type Qcow2Header, Incompatible, featureWordsOffset } from './header.js';

const sectorSize = 512;
const refcountTableOffsetAt = 48;

/** The header as it stands in the file. */
export class HeaderFile {
  readonly #file: StorageFile;
  readonly #mutex = new LongMutex(new Int32Array(new SharedArrayBuffer(4)), 0);
  #header: Qcow2Header;

  constructor(file: StorageFile, header: Qcow2Header) {
    this.#file = file;
    this.#header = header;
  }

  get header(): Qcow2Header {
    return this.#header;
  }

  /** Whether the dirty bit says that reference counts on disk may be too low. */
  get isDirty(): boolean {
    return (this.#header.incompatibleFeatures & Incompatible.dirty) !== 0;
  }

  /** Sets or clears the dirty bit, durably. */
  async setDirty(dirty: boolean): Promise<void> {
    if (this.isDirty === dirty) return;
    const others = this.#header.incompatibleFeatures & ~Incompatible.dirty;
    await this.#setFeatures(
      dirty ? others | Incompatible.dirty : others,
      this.#header.autoclearFeatures,
    );
  }

  /**
   * Clears autoclear bits other than those to keep, durably; unknown bits go too (specification,
   * bytes 88 to 95).
   */
  async clearAutoclear(keep: number): Promise<void> {
    const { autoclearFeatures, hasUnknownAutoclear } = this.#header;
    if (!hasUnknownAutoclear && (autoclearFeatures & ~keep) === 0) return;
    await this.#setFeatures(
      this.#header.incompatibleFeatures,
      this.#header.autoclearFeatures & keep,
    );
  }

  /** Makes the header point at another refcount table, durably. */
  async moveRefcountTable(hostOffset: number, clusters: number): Promise<void> {
    await this.#changeSector((sector) => {
      sector.setBigUint64(refcountTableOffsetAt, BigInt(hostOffset));
      sector.setUint32(refcountTableOffsetAt + 8, clusters);
    });
    this.#header = {
      ...this.#header,
      refcountTableOffset: hostOffset,
      refcountTableClusters: clusters,
    };
  }

  async #setFeatures(incompatible: number, autoclear: number): Promise<void> {
    await this.#changeSector((sector) => {
      sector.setUint32(featureWordsOffset + 4, incompatible);
      sector.setUint32(featureWordsOffset + 16, 0);
      sector.setUint32(featureWordsOffset + 20, autoclear);
    });
    this.#header = {
      ...this.#header,
      incompatibleFeatures: incompatible,
      autoclearFeatures: autoclear,
    };
  }

  async #changeSector(change: (sector: DataView) => void): Promise<void> {
    await this.#mutex.runExclusive(async () => {
      const sector = new Uint8Array(sectorSize);
      await this.#file.read(sector, 0);
      change(new DataView(sector.buffer));
      await this.#file.write(sector, 0);
      await this.#file.flush();
    });
  }
}
