/**
 * Doing without clusters of zeroes, which version 2 does not know: what reads as zeroes without them is left out, other
 * clusters of zeroes are written. Tables are read and written around the cache, those of snapshots too.
 */
import { problemWith } from '../../../errors.js';
import { type ClusterIndex, type HostOffset, after } from '../layout/geometry.js';
import { readSnapshots } from '../contents/snapshots.js';
import { CryptMethod } from '../layout/header.js';
import { ClusterKind } from '../layout/l2-entry.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Structure } from '../overlap/levels.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import { walkTables } from '../tables/table-walk.js';
import { type ExclusiveChanges, lowerCounts } from './exclusive.js';
import { activeL1, allTables, countReferences, readSnapshotL1 } from './references.js';
import type { StepOptions } from './change-progress.js';

const copiedHigh = 0x80000000;
/** Bytes of tables that wait to be written. */
const writtenAtOnce = 4 * 1024 * 1024;

/** Takes the clusters of zeroes out of one image, which was made ready for changes. */
export class ZeroExpansion {
  readonly #metadata: Qcow2Metadata;
  readonly #changes: ExclusiveChanges;
  /** Whether what is not there shows what another image holds. */
  readonly #hasBacking: boolean;
  /** Tables as they are to be, by their places. */
  readonly #changed = new Map<HostOffset, Uint8Array>();
  /** References that the tables do not make any more. */
  #givenUp = new PackedCounts(0);
  /** Clusters whose counts are not what the tables in the file refer to, for all that is known. */
  #unsettled = new Set<ClusterIndex>();

  constructor(metadata: Qcow2Metadata, changes: ExclusiveChanges) {
    this.#metadata = metadata;
    this.#changes = changes;
    this.#hasBacking = metadata.headerFile.header.backingFile !== undefined;
  }

  async run({ signal, onPart }: StepOptions): Promise<void> {
    const { file, geometry, l2Cache } = this.#metadata;
    l2Cache.clear();
    const { tables, entries } = await allTables(this.#metadata);
    let done = 0;
    const pass = (to: number): void => {
      while (done < to) onPart(++done, entries);
    };
    try {
      for await (const { index, hostOffset, view } of walkTables(
        file,
        tables,
        geometry.clusterSize,
      )) {
        signal?.throwIfAborted();
        pass(index);
        await this.#expand(hostOffset, view);
        if (this.#changed.size * geometry.clusterSize >= writtenAtOnce) await this.#write();
      }
      await this.#write();
      pass(entries);
    } catch (error) {
      const unsettled = this.#unsettled;
      await this.#changes.later(() => lowerExcess(this.#metadata, unsettled));
      throw error;
    }
  }

  async #expand(tableOffset: HostOffset, view: DataView): Promise<void> {
    const { entries, geometry, refcounts } = this.#metadata;
    const { l2EntrySize } = geometry;
    const references = await refcounts.get(geometry.clusterAt(tableOffset));
    const missing: number[] = [];
    let hasChanged = false;
    for (let at = 0; at < view.byteLength; at += l2EntrySize) {
      const kind = entries.kind(view, at);
      if (kind !== ClusterKind.zeroPlain && kind !== ClusterKind.zeroAllocated) continue;
      hasChanged = true;
      if (kind === ClusterKind.zeroAllocated) {
        const hostOffset = entries.hostOffset(view, at);
        if (await this.#isOwn(hostOffset, references)) {
          await this.#zero(hostOffset, 1);
          this.#point(view, at, hostOffset, references);
          continue;
        }
        // Another entry says that what is stored there is data.
        for (let each = 0; each < references; each++) {
          this.#givenUp.increment(geometry.clusterAt(hostOffset), 1);
        }
        this.#unsettled.add(geometry.clusterAt(hostOffset));
      }
      if (this.#hasBacking) missing.push(at);
      else entries.clear(view, at);
    }
    if (!hasChanged) return;
    await this.#allocate(view, missing, references);
    this.#changed.set(tableOffset, new Uint8Array(view.buffer).slice());
  }

  /** Whether all references to a cluster are those of one entry of a table that has so many. */
  async #isOwn(hostOffset: HostOffset, references: number): Promise<boolean> {
    const { geometry, refcounts } = this.#metadata;
    if (!geometry.canHoldCluster(hostOffset)) return false;
    return (await refcounts.get(geometry.clusterAt(hostOffset))) === references;
  }

  /** Has entries point at clusters of their own that hold zeroes. */
  async #allocate(view: DataView, missing: readonly number[], references: number): Promise<void> {
    const { allocator, geometry } = this.#metadata;
    for (let next = 0; next < missing.length;) {
      const { cluster, length, knownZero } = await allocator.reserve(missing.length - next);
      for (let index = 0; index < length; index++) this.#unsettled.add(after(cluster, index));
      for (let more = 1; more < references; more++) await allocator.raise(cluster, length);
      const hostOffset = geometry.startOf(cluster);
      if (!knownZero || this.#isEncrypted) await this.#zero(hostOffset, length);
      for (let index = 0; index < length; index++, next++) {
        const place = after(hostOffset, index * geometry.clusterSize);
        this.#point(view, missing[next], place, references);
      }
    }
  }

  #point(view: DataView, at: number, hostOffset: HostOffset, references: number): void {
    const { entries } = this.#metadata;
    entries.setNormal(view, at, hostOffset);
    if (references !== 1) view.setUint32(at, (view.getUint32(at) & ~copiedHigh) >>> 0);
  }

  get #isEncrypted(): boolean {
    return this.#metadata.headerFile.header.cryptMethod !== CryptMethod.none;
  }

  async #zero(hostOffset: HostOffset, clusters: number): Promise<void> {
    const { file, geometry, overlap } = this.#metadata;
    if (this.#isEncrypted) {
      const why =
        'Cannot downgrade an encrypted image with clusters of zeroes that are to be stored';
      throw problemWith('ERR_COWHERD_UNSUPPORTED', file.filename, why);
    }
    const bytes = clusters * geometry.clusterSize;
    overlap.check(hostOffset, bytes, 'a cluster of zeroes');
    await file.writeZeroes(hostOffset, bytes, false);
  }

  /** Writes the tables that have changed, durably, after what they point at; then what they do not is given up. */
  async #write(): Promise<void> {
    const { file, flushOrder, geometry, overlap } = this.#metadata;
    if (this.#changed.size === 0) return;
    await flushOrder.flushAll();
    await file.flush();
    const writes = [...this.#changed].map(([hostOffset, bytes]) => {
      const own = Structure.activeL2 | Structure.inactiveL2;
      overlap.check(hostOffset, geometry.clusterSize, 'an L2 table', own);
      return file.write(bytes, hostOffset);
    });
    for (const end of await Promise.allSettled(writes)) {
      if (end.status === 'rejected') throw end.reason as Error;
    }
    await file.flush();
    this.#changed.clear();
    this.#unsettled = new Set();
    const givenUp = this.#givenUp;
    this.#givenUp = new PackedCounts(0);
    await this.#changes.later(() => lowerCounts(this.#metadata, givenUp));
  }
}

/** Lowers the counts of clusters to as many references as the tables in the file make to them. */
async function lowerExcess(
  metadata: Qcow2Metadata,
  clusters: ReadonlySet<ClusterIndex>,
): Promise<void> {
  const { file, flushOrder, headerFile, refcounts } = metadata;
  if (clusters.size === 0) return;
  await flushOrder.flushAll();
  const { snapshots } = await readSnapshots(file, headerFile.header);
  const tables = [activeL1(metadata)];
  for (const snapshot of snapshots) tables.push(await readSnapshotL1(metadata, snapshot));
  const excess = new PackedCounts(0);
  for (const cluster of clusters) excess.set(cluster, await refcounts.get(cluster));
  for (const table of tables) {
    const counts = await countReferences(metadata, table);
    for (const cluster of clusters) {
      excess.set(cluster, Math.max(0, excess.get(cluster) - counts.get(cluster)));
    }
  }
  await lowerCounts(metadata, excess);
}
