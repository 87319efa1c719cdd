/** Room for machine state, which an image has beyond its disk: where the next L2 table begins that maps none of it. */
import { problemWith } from '../../../errors.js';
import { maxL1TableBytes } from '../../../limits.js';
import type { VmStatePlace } from '../../driver.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import type { Qcow2Resizing } from './resize.js';

/** See the file's comment. */
export class Qcow2VmState implements VmStatePlace {
  readonly #metadata: Qcow2Metadata;
  readonly #resizing: Qcow2Resizing;

  constructor(metadata: Qcow2Metadata, resizing: Qcow2Resizing) {
    this.#metadata = metadata;
    this.#resizing = resizing;
  }

  get offset(): number {
    const { geometry, diskSize } = this.#metadata;
    return geometry.l1Entries(diskSize) * geometry.tableReach;
  }

  get end(): number {
    const { geometry, l1 } = this.#metadata;
    return l1.length * geometry.tableReach;
  }

  async makeRoom(end: number): Promise<void> {
    const { file, geometry, l1 } = this.#metadata;
    const entries = geometry.l1Entries(end);
    const most = Math.min(l1.capacity, maxL1TableBytes / 8);
    if (entries > most) {
      const why = `Failed to grow the L1 table: an open image has room for ${most} entries`;
      throw problemWith('ERR_COWHERD_UNSUPPORTED', file.filename, why, {
        reason: 'File too large',
      });
    }
    // QEMU's way of making it longer: half as long again.
    let longer = Math.max(1, l1.length);
    while (longer < entries) longer = Math.ceil((longer * 3) / 2);
    if (longer > l1.length) await this.#resizing.lengthenL1Table(Math.min(longer, most));
  }
}
