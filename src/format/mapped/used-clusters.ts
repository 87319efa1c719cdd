/** Which clusters of a file are in use, a bit each. */
import { maxCheckedClusters } from '../../limits.js';

/** See the file's comment. */
export class UsedClusters {
  readonly #bits: Uint8Array;
  #count = 0;

  /**
   * Undefined for more clusters than `maxCheckedClusters`.
   *
   * @param length clusters of the file; memory is taken for them where some are in use
   */
  static of(length: number): UsedClusters | undefined {
    return length > maxCheckedClusters ? undefined : new UsedClusters(length);
  }

  private constructor(length: number) {
    this.#bits = new Uint8Array(new SharedArrayBuffer(Math.ceil(length / 8)));
  }

  /** How many are in use. */
  get count(): number {
    return this.#count;
  }

  /** Takes a cluster, within the length. @returns whether it was free until now */
  take(cluster: number): boolean {
    const at = Math.floor(cluster / 8);
    const bit = 1 << (cluster % 8);
    if ((this.#bits[at] & bit) !== 0) return false;
    this.#bits[at] |= bit;
    this.#count += 1;
    return true;
  }

  /** Whether a cluster is in use, within the length. */
  has(cluster: number): boolean {
    return (this.#bits[Math.floor(cluster / 8)] & (1 << (cluster % 8))) !== 0;
  }

  /** Gives a cluster back that is in use. */
  giveBack(cluster: number): void {
    this.#bits[Math.floor(cluster / 8)] &= ~(1 << (cluster % 8));
    this.#count -= 1;
  }
}
