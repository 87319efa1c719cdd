/**
 * Putting reference counts right: one by one, in the blocks that hold them, or all of them anew.
 *
 * A count is only ever set to the number of references there are, so a power cut between two writes
 * leaves some counts right and the others as they were.
 */
import { type CowherdError, problemWith } from '../../../../errors.js';
import { maxRefcountTableBytes } from '../../../../limits.js';
import type { CheckedImage } from '../tables/checked-image.js';
import type { PackedCounts } from '../../refcount/packed-counts.js';
import { refcountWidth } from '../../layout/refcount-width.js';

const sectorSize = 512;

/** Sets single counts in the refcount blocks of a file, best in ascending order of clusters. */
export class RefcountEditor {
  readonly #image: CheckedImage;
  #block = -1;
  #bytes = new Uint8Array(0);
  /** Bytes of the block that have changed. */
  #from = Infinity;
  #to = 0;

  constructor(image: CheckedImage) {
    this.#image = image;
  }

  /** Whether a block exists that holds the count of a cluster. */
  canSet(cluster: number): boolean {
    const block = Math.floor(cluster / this.#image.geometry.refcountsPerBlock);
    return block < this.#image.refcountBlocks && this.#image.refcountBlock(block) !== 0;
  }

  /** Sets the count of a cluster for which a block exists. */
  async set(cluster: number, count: number): Promise<void> {
    const { refcountsPerBlock, refcountOrder, refcountBits, clusterSize } = this.#image.geometry;
    const block = Math.floor(cluster / refcountsPerBlock);
    if (block !== this.#block) {
      await this.#write();
      this.#bytes = new Uint8Array(clusterSize);
      await this.#image.file.read(this.#bytes, this.#image.refcountBlock(block));
      this.#block = block;
    }
    const index = cluster % refcountsPerBlock;
    refcountWidth(refcountOrder).set(new DataView(this.#bytes.buffer), 0, index, count);
    const at = Math.floor((index * refcountBits) / 8);
    this.#from = Math.min(this.#from, Math.floor(at / sectorSize) * sectorSize);
    this.#to = Math.max(this.#to, (Math.floor(at / sectorSize) + 1) * sectorSize);
  }

  /** Makes every count that was set durable. */
  async finish(): Promise<void> {
    await this.#write();
    this.#block = -1;
    await this.#image.file.flush();
  }

  async #write(): Promise<void> {
    if (this.#to === 0) return;
    const hostOffset = this.#image.refcountBlock(this.#block);
    await this.#image.file.write(
      this.#bytes.subarray(this.#from, this.#to),
      hostOffset + this.#from,
    );
    this.#from = Infinity;
    this.#to = 0;
  }
}

/**
 * Writes a new refcount table and new blocks into clusters that nothing refers to, then makes the
 * header point at them: until that one sector is written, the image is what it was.
 *
 *     [ … in use … ][ block 0 ][ block 1 ]…[ refcount table ][ … ]
 *                     in the first gap of the range it counts; the table in the first gap at all
 *
 * The new structures are counted in `found`; the old ones stay counted in it until somebody counts
 * anew.
 *
 * @param found references to every cluster
 * @param fileLength length of the file in bytes
 * @throws ERR_COWHERD_NO_SPACE if the file is too large for a refcount table
 */
export async function rebuildRefcounts(
  image: CheckedImage,
  found: PackedCounts,
  fileLength: number,
): Promise<void> {
  const { file, geometry } = image;
  const { clusterSize, refcountsPerBlock } = geometry;
  const plan = new RebuildPlan(image, found, fileLength);
  const { blocks, tableCluster, tableClusters } = plan.run();
  const table = new DataView(new ArrayBuffer(tableClusters * clusterSize));
  const width = refcountWidth(geometry.refcountOrder);
  // Most blocks of a large file are alike.
  const allOne = new DataView(new ArrayBuffer(clusterSize));
  for (let index = 0; index < refcountsPerBlock; index++) width.set(allOne, 0, index, 1);
  for (const [block, cluster] of blocks) {
    const first = block * refcountsPerBlock;
    const end = first + refcountsPerBlock;
    const isPlain = found.areAllOne(first, refcountsPerBlock);
    const view = isPlain ? allOne : new DataView(new ArrayBuffer(clusterSize));
    for (let next = first; !isPlain && next < end; next++) {
      next = found.nextUsed(next, end);
      if (next < end) width.set(view, 0, next - first, found.get(next));
    }
    await file.write(new Uint8Array(view.buffer), cluster * clusterSize);
    table.setBigUint64(block * 8, BigInt(cluster * clusterSize));
  }
  await file.write(new Uint8Array(table.buffer), tableCluster * clusterSize);
  await file.flush();
  await image.moveRefcountTable(tableCluster * clusterSize, table);
}

/** Finds places for new refcount structures, each of which is then counted like everything else. */
class RebuildPlan {
  readonly #image: CheckedImage;
  readonly #found: PackedCounts;
  /** Cluster of each block, by the index of the block. */
  readonly #blocks = new Map<number, number>();
  readonly #end: number;
  /** From the one cluster up to the other, none is free. */
  #searched = { start: 0, free: 0 };

  constructor(image: CheckedImage, found: PackedCounts, fileLength: number) {
    this.#image = image;
    this.#found = found;
    this.#end = Math.max(image.geometry.clusters(fileLength), found.highest() + 1);
  }

  run(): { blocks: ReadonlyMap<number, number>; tableCluster: number; tableClusters: number } {
    const { clusterSize } = this.#image.geometry;
    this.#coverAll(0, this.#end);
    for (;;) {
      const tableClusters = this.#tableClusters();
      if (tableClusters * clusterSize > maxRefcountTableBytes) throw this.#tooLarge();
      const tableCluster = this.#take(0, tableClusters);
      this.#coverAll(tableCluster, tableCluster + tableClusters);
      if (this.#tableClusters() === tableClusters) {
        return { blocks: this.#blocks, tableCluster, tableClusters };
      }
      // Its own block made it too short: that place is given up for a longer one.
      for (let index = 0; index < tableClusters; index++) this.#found.set(tableCluster + index, 0);
      this.#searched = { start: 0, free: 0 };
    }
  }

  #tableClusters(): number {
    const { clusterSize } = this.#image.geometry;
    let last = 0;
    for (const block of this.#blocks.keys()) last = Math.max(last, block);
    return Math.ceil(((last + 1) * 8) / clusterSize);
  }

  /** Makes sure that a block exists for every cluster in use of a range, and for the blocks added. */
  #coverAll(from: number, to: number): void {
    const { refcountsPerBlock } = this.#image.geometry;
    let end = to;
    let next = this.#found.nextUsed(from, end);
    while (next < end) {
      const block = Math.floor(next / refcountsPerBlock);
      const blockStart = block * refcountsPerBlock;
      if (!this.#blocks.has(block)) {
        const cluster = this.#take(blockStart, 1);
        this.#blocks.set(block, cluster);
        end = Math.max(end, cluster + 1);
      }
      next = this.#found.nextUsed(blockStart + refcountsPerBlock, end);
    }
  }

  /** The first gap of so many clusters from one on, counted from now on. */
  #take(from: number, clusters: number): number {
    let first = this.#nextFree(from);
    for (;;) {
      const used = this.#found.nextUsed(first, first + clusters);
      if (used === first + clusters) break;
      first = this.#nextFree(used);
    }
    this.#found.increment(first, clusters);
    return first;
  }

  /** Remembers where it last looked: in a full file every block would search to its end again. */
  #nextFree(from: number): number {
    const { start, free } = this.#searched;
    const next = this.#found.nextFree(from >= start && from < free ? free : from);
    this.#searched = { start: from >= start && from < free ? start : from, free: next };
    return next;
  }

  #tooLarge(): CowherdError {
    const { filename } = this.#image.file;
    return problemWith(
      'ERR_COWHERD_NO_SPACE',
      filename,
      'the file is too large for a new reference count table',
    );
  }
}
