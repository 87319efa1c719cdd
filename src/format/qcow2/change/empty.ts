/**
 * Making an image as if nothing had ever been written to it, however much it holds: the L1 table forgets the L2
 * tables, then new refcount structures say that nothing else is in use, and the file ends behind them.
 *
 *     [ header ][ refcount table ][ refcount block ][ L1 table ]
 *
 * They may have to lie where the old ones do, so they are written elsewhere first, and the header points there
 * meanwhile. Each step is durable before the next, and what is cut off leaves leaked clusters at most.
 */
import type { StorageFile } from '../../../storage/storage.js';
import {
  type ClusterIndex,
  type Geometry,
  after,
  asClusterIndex,
  asHostOffset,
} from '../layout/geometry.js';
import { CryptMethod, Incompatible, type Qcow2Header } from '../layout/header.js';
import { ExtensionType } from '../layout/header-extensions.js';
import { refcountWidth } from '../layout/refcount-width.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Structure } from '../overlap/levels.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import { reclaimAll } from '../requests/reclaim.js';
import { pointerAt } from '../tables/pointer-table.js';
import { type ExclusiveChanges, lowerCounts } from './exclusive.js';
import { activeL1, countReferences } from './references.js';

/** Where the structures of an empty image lie, one behind the other from a cluster on. */
interface Place {
  readonly first: ClusterIndex;
  readonly l1Clusters: number;
}

/** What lies in front of the L1 table: a refcount table and a refcount block. */
const countingClusters = 2;
/** Behind the header. */
const firstPlace = asClusterIndex(1);

/** Extensions of the header that own no clusters. */
const ownNothing: readonly number[] = [ExtensionType.backingFormat, ExtensionType.featureNames];

/** Empties one image. */
export class Emptying {
  readonly #metadata: Qcow2Metadata;
  /** Where everything lies at the end, and meanwhile. */
  readonly #places: readonly Place[];

  private constructor(metadata: Qcow2Metadata, places: readonly Place[]) {
    this.#metadata = metadata;
    this.#places = places;
  }

  /** How an image is emptied; undefined where its clusters have to be given up one by one. */
  static of(metadata: Qcow2Metadata): Emptying | undefined {
    const { geometry, headerFile, l1 } = metadata;
    if (!ownsDiskOnly(headerFile.header)) return undefined;
    const l1Clusters = geometry.clusters(l1.length * 8);
    const last = { first: firstPlace, l1Clusters };
    const meanwhile = placeBeside(metadata, last);
    return meanwhile && new Emptying(metadata, [meanwhile, last]);
  }

  /** Forgets what the disk holds; nothing has moved. All of it is on disk, and no queue runs a request. */
  async forget(): Promise<void> {
    const { l1, file, flushOrder, counters } = this.#metadata;
    for (let index = 0; index < l1.length; index++) l1.set(index, asHostOffset(0), false);
    flushOrder.noteTable();
    await flushOrder.flushAll();
    // So that no queue gives anything back when what counted it is gone.
    await reclaimAll({ metadata: this.#metadata, file, counters });
    await flushOrder.flushAll();
  }

  /** Puts new tables in the place of the old ones; what is in memory of counts is void from here on. */
  async renew(): Promise<void> {
    const { file, geometry } = this.#metadata;
    await file.events?.hear('empty_image_prepare');
    for (const place of this.#places) {
      await writeStructures(file, geometry, place);
      await file.flush();
      await this.#pointAt(place);
    }
    if (file.limits.blockDevice) return;
    await file.truncate(endOf(this.#places.at(-1)!) * geometry.clusterSize);
    await file.flush();
  }

  async #pointAt({ first, l1Clusters }: Place): Promise<void> {
    const { geometry, headerFile, l1, refcounts } = this.#metadata;
    const hostOffset = geometry.startOf(first);
    const l1Offset =
      l1Clusters === 0 ? asHostOffset(0) : geometry.startOf(after(first, countingClusters));
    await headerFile.moveTables(l1Offset, { hostOffset, clusters: 1 });
    l1.place(l1Offset, l1.length);
    refcounts.table.place(hostOffset, geometry.clusterSize / 8);
  }
}

/** Forgets what the disk holds, cluster by cluster, for an image whose queues go on. */
export async function forgetDisk(
  metadata: Qcow2Metadata,
  changes: ExclusiveChanges,
): Promise<void> {
  const { allocator, flushOrder, geometry, l1, l2Cache, overlap } = metadata;
  const table = activeL1(metadata);
  const counts = await referencesOf(metadata, table);
  await allocator.checkAll(counts, -1);
  l2Cache.clear();
  for (let index = 0; index < l1.length; index++) l1.set(index, asHostOffset(0), false);
  flushOrder.noteTable();
  await flushOrder.flushAll();
  await changes.later(async () => {
    for (let at = 0; at < table.byteLength; at += 8) {
      const place = pointerAt(table, at);
      if (place !== 0) overlap.release(place, geometry.clusterSize, Structure.activeL2);
    }
    await lowerCounts(metadata, counts);
  });
  await flushOrder.flushAll();
}

/** The references to clusters of the image's own file that its L1 table makes. */
async function referencesOf(metadata: Qcow2Metadata, l1: DataView): Promise<PackedCounts> {
  const { geometry, headerFile } = metadata;
  const { incompatibleFeatures } = headerFile.header;
  if ((incompatibleFeatures & Incompatible.externalDataFile) === 0) {
    return await countReferences(metadata, l1);
  }
  const counts = new PackedCounts(0);
  for (let at = 0; at < l1.byteLength; at += 8) {
    const place = pointerAt(l1, at);
    if (place !== 0) counts.increment(geometry.clusterAt(place), 1);
  }
  return counts;
}

/** Whether every cluster behind the header belongs to the disk, or counts those. */
function ownsDiskOnly(header: Qcow2Header): boolean {
  const { snapshotCount, cryptMethod, incompatibleFeatures, extensions } = header;
  return (
    snapshotCount === 0 &&
    cryptMethod === CryptMethod.none &&
    (incompatibleFeatures & Incompatible.externalDataFile) === 0 &&
    extensions.every(({ type }) => ownNothing.includes(type))
  );
}

/** A place for the structures where neither the present ones lie nor those that are to be. */
function placeBeside(metadata: Qcow2Metadata, last: Place): Place | undefined {
  const { geometry, l1, refcounts } = metadata;
  const used = new Set<number>();
  const use = (from: ClusterIndex, clusters: number): void => {
    for (let index = 0; index < clusters; index++) used.add(from + index);
  };
  use(geometry.clusterAt(l1.hostOffset), last.l1Clusters);
  const { table } = refcounts;
  use(geometry.clusterAt(table.hostOffset), geometry.clusters(table.length * 8));
  for (const offset of table.offsets()) use(geometry.clusterAt(offset), 1);
  let first = endOf(last);
  // One block counts all that there is.
  for (let next = first; next < geometry.refcountsPerBlock; next = after(next, 1)) {
    if (used.has(next)) first = after(next, 1);
    const place = { ...last, first };
    if (next + 1 === endOf(place)) return place;
  }
  return undefined;
}

/** The cluster behind the structures. */
function endOf({ first, l1Clusters }: Place): ClusterIndex {
  return after(first, countingClusters + l1Clusters);
}

async function writeStructures(file: StorageFile, geometry: Geometry, place: Place): Promise<void> {
  const { clusterSize, refcountOrder } = geometry;
  const { first } = place;
  const bytes = new Uint8Array((endOf(place) - first) * clusterSize);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(geometry.startOf(after(first, 1))));
  const width = refcountWidth(refcountOrder);
  width.set(view, clusterSize, 0, 1);
  for (let cluster = first; cluster < endOf(place); cluster = after(cluster, 1)) {
    width.set(view, clusterSize, cluster, 1);
  }
  await file.write(bytes, geometry.startOf(first));
}
