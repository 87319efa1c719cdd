/** The reference counts of a whole file as its refcount blocks have them, for a check. */
import { bigEndian, wordsOf } from '../../layout/big-endian.js';
import type { CheckedImage } from '../tables/checked-image.js';
import { PackedCounts } from '../../refcount/packed-counts.js';
import { exactCounts } from '../../layout/refcount-width.js';
import { type TablePointer, walkTables } from '../../tables/table-walk.js';

/** Counts, and the refcount blocks that cannot be read, so that nothing is known of what they count. */
export class StoredCounts {
  /** Those beyond numbers, which `counts` has nearly right. */
  readonly #unrepresentable = new Map<number, bigint>();

  constructor(
    readonly counts: PackedCounts,
    readonly unreadable: ReadonlySet<number> = new Set(),
  ) {}

  /** The count of a cluster, a bigint where no number holds it. */
  exact(cluster: number): number | bigint {
    return this.#unrepresentable.get(cluster) ?? this.counts.get(cluster);
  }

  set(cluster: number, count: number | bigint): void {
    if (typeof count === 'bigint') this.#unrepresentable.set(cluster, count);
    else if (this.#unrepresentable.size > 0) this.#unrepresentable.delete(cluster);
    this.counts.set(cluster, Number(count));
  }
}

/**
 * Reads the counts of a file's clusters, and of one that begins where the file ends. Those beyond
 * are left out: a small file could claim any number of them.
 */
export async function readStoredCounts(
  image: CheckedImage,
  fileLength: number,
  signal: AbortSignal | undefined,
): Promise<StoredCounts> {
  const { refcountsPerBlock, clusterSize, refcountOrder, refcountBits } = image.geometry;
  const clusters = image.geometry.clusters(fileLength);
  const counts = new PackedCounts(clusters);
  const unreadable = new Set<number>();
  const stored = new StoredCounts(counts, unreadable);
  const countAt = exactCounts(refcountOrder);
  const pointers: TablePointer[] = [];
  for (let block = 0; block < image.refcountBlocks; block++) {
    const hostOffset = image.refcountBlock(block);
    if (!image.isBlockAligned(block)) {
      unreadable.add(block);
    } else if (
      hostOffset !== 0 &&
      hostOffset < fileLength &&
      block * refcountsPerBlock <= clusters
    ) {
      pointers.push({ index: block, hostOffset });
    }
  }
  for await (const block of walkTables(image.file, pointers, clusterSize)) {
    signal?.throwIfAborted();
    const first = block.index * refcountsPerBlock;
    const { view } = block;
    const words = wordsOf(view);
    const end = Math.min(refcountsPerBlock, clusters + 1 - first);
    for (let index = 0; index < end;) {
      const ones = refcountBits === 16 && index % 2 === 0 ? pairsOfOnes(words, index / 2) * 2 : 0;
      const plain = Math.min(ones, clusters - first - index);
      if (plain > 0) {
        counts.increment(first + index, plain);
        index += plain;
      } else {
        const count = countAt(view, index);
        if (count !== 0) stored.set(first + index, count);
        index++;
      }
    }
  }
  return stored;
}

/** Reads the count of one cluster, exactly, which may lie beyond the end of the file. */
export async function readCount(image: CheckedImage, cluster: number): Promise<number | bigint> {
  const { refcountsPerBlock, refcountBits, refcountOrder } = image.geometry;
  const block = Math.floor(cluster / refcountsPerBlock);
  const hostOffset = block < image.refcountBlocks ? image.refcountBlock(block) : 0;
  if (hostOffset === 0 || hostOffset >= (await image.file.size())) return 0;
  const index = cluster % refcountsPerBlock;
  const at = Math.floor((index * refcountBits) / 64) * 8;
  const view = await image.readTable(hostOffset + at, 8);
  return exactCounts(refcountOrder)(view, index - (at * 8) / refcountBits);
}

/** How many words from one on hold two 16-bit counts of one each, as most of most images do. */
function pairsOfOnes(words: Uint32Array, from: number): number {
  const ones = bigEndian(0x00010001);
  let at = from;
  while (at < words.length && words[at] === ones) at++;
  return at - from;
}
