/** Giving up refcount blocks that count nothing any more, as what they have counted is given up. */
import { isZero } from '../../../native/zero-scan.js';
import { asHostOffset } from '../layout/geometry.js';
import { refcountWidth } from '../layout/refcount-width.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Structure } from '../overlap/levels.js';
import { type TablePointer, walkTables } from '../tables/table-walk.js';

/**
 * Takes blocks that count nothing, but perhaps themselves, out of the refcount table; on the disk, too, before their
 * clusters are given up. All changes are on the disk, and no queue runs a request.
 */
export async function giveUpEmptyBlocks(metadata: Qcow2Metadata): Promise<void> {
  const { allocator, file, flushOrder, geometry, overlap, refcounts } = metadata;
  const { clusterSize, slicesPerTable } = geometry;
  const blocks = await emptyBlocks(metadata);
  if (blocks.length === 0) return;
  for (const { index, hostOffset } of blocks) {
    refcounts.table.set(index, asHostOffset(0), false);
    for (let slice = 0; slice < slicesPerTable; slice++) {
      refcounts.cache.drop(index * slicesPerTable + slice);
    }
    overlap.release(hostOffset, clusterSize, Structure.refcountBlock);
  }
  flushOrder.noteTable();
  await flushOrder.flushAll();
  await file.flush();
  for (const { hostOffset } of blocks) {
    const cluster = geometry.clusterAt(hostOffset);
    // The count of one that has counted itself is gone with it.
    if (refcounts.hasBlock(cluster)) await allocator.lowerAll(cluster, 1);
  }
}

async function emptyBlocks({
  file,
  geometry,
  refcounts,
}: Qcow2Metadata): Promise<readonly TablePointer[]> {
  const { clusterSize, refcountOrder, refcountsPerBlock } = geometry;
  const width = refcountWidth(refcountOrder, file.filename);
  const found: TablePointer[] = [];
  for await (const { index, hostOffset, view } of walkTables(
    file,
    refcounts.table.entries(),
    clusterSize,
  )) {
    const own = geometry.clusterAt(hostOffset) - geometry.firstCounted(index);
    if (own >= 0 && own < refcountsPerBlock && width.get(view, 0, own) === 1) {
      width.set(view, 0, own, 0);
    }
    const bytes = new Uint8Array(view.buffer, view.byteOffset, clusterSize);
    if (isZero(bytes)) found.push({ index, hostOffset });
  }
  return found;
}
