/**
 * Checking an image, and repairing it: counts every reference to every host cluster, compares with
 * the reference counts in the file, and puts right what is wrong. Findings carry qemu-img's words.
 * Memory is half a byte a host cluster.
 *
 * A repair writes in this order, each step durable before the next, so that a power cut leaves an
 * image no worse than it was:
 *
 *     reference counts ▏ COPIED flags ▏ snapshot table ▏ dirty and corrupt bits cleared
 *     one by one, or all anew behind one write of the header
 *
 * Guest data is never written.
 */
import { nameMemoryError } from '../../../errors.js';
import { TurnOfOthers } from '../../../turn-of-others.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { CheckFailure, CheckOptions, CheckReport } from '../../check.js';
import { checkCopiedFlags } from './copied-flags.js';
import { CheckGivenUp, Findings } from './findings/findings.js';
import { type References, countReferences, refuseBrokenBitmaps } from './references.js';
import {
  type CheckedSnapshots,
  readCheckedSnapshots,
  l1TableFault,
} from './tables/snapshot-table.js';
import { CheckedImage, l2TableOffset } from './tables/checked-image.js';
import type { Qcow2Header } from '../layout/header.js';
import { encodeSnapshots } from '../contents/snapshots.js';
import { PackedCounts } from '../refcount/packed-counts.js';
import { RefcountEditor, rebuildRefcounts } from './repair/refcounts.js';
import { StoredCounts, readCount, readStoredCounts } from './counts/stored-counts.js';

/** How a check is observed and cancelled, and what it repairs. */
export interface Qcow2CheckOptions extends CheckOptions {
  /**
   * Runs of clusters that a program at work holds a reference to, which no table shows: in reserve, or
   * not given back yet.
   */
  readonly held?: readonly { readonly cluster: number; readonly length: number }[] | undefined;
}

/**
 * Checks an image whose changes are in the file, and which nobody changes meanwhile.
 *
 * @param header the header as it stands in the file
 */
export function checkQcow2(
  file: StorageFile,
  header: Qcow2Header,
  options: Qcow2CheckOptions,
): Promise<CheckReport> {
  return new Check(new CheckedImage(file, header), options).run();
}

/** What a pass over the counts may change. */
interface Fixes {
  readonly leaks: boolean;
  readonly errors: boolean;
}

const nothing: Fixes = { leaks: false, errors: false };

class Check {
  readonly #image: CheckedImage;
  readonly #options: Qcow2CheckOptions;
  readonly #fixes: Fixes;
  readonly #findings: Findings;
  #fileLength = 0;
  #snapshots: CheckedSnapshots = { snapshots: [], lengthBytes: 0 };
  #stored!: StoredCounts;
  #references!: References;
  /** References to L2 tables, by cluster: made when it is first needed. */
  #tableReferences: ReadonlyMap<number, number> | undefined;

  constructor(image: CheckedImage, options: Qcow2CheckOptions) {
    this.#image = image;
    this.#options = options;
    const { repair } = options;
    this.#fixes = { leaks: repair !== undefined, errors: repair === 'all' };
    this.#findings = new Findings(options.onFinding);
  }

  async run(): Promise<CheckReport> {
    const { file, geometry } = this.#image;
    let failure: CheckFailure | undefined;
    let highest = -1;
    try {
      highest = await this.#run();
    } catch (error) {
      if (!(error instanceof CheckGivenUp)) throw nameMemoryError(error, file.filename);
      failure = error.failure;
    }
    return this.#findings.report({
      filename: file.filename,
      failure,
      imageEndOffset: (highest + 1) * geometry.clusterSize,
      totalClusters: geometry.clusters(this.#image.header.size),
    });
  }

  /** @returns the last cluster in use */
  async #run(): Promise<number> {
    const { counts, snapshots } = this.#findings;
    await this.#image.load();
    await refuseBrokenBitmaps(this.#image);
    this.#snapshots = await readCheckedSnapshots(this.#image, this.#findings, this.#fixes.errors);
    if (this.#fixes.leaks) await this.#image.clearUnknownAutoclear();
    const highest = await this.#checkCounts();
    await this.#checkCopied();
    if (this.#fixes.errors && snapshots.corruptions > 0) await this.#rewriteSnapshots();
    const isRight = counts.checkErrors === 0 && counts.corruptions + snapshots.corruptions === 0;
    if (this.#fixes.leaks && isRight) await this.#image.markClean();
    return highest;
  }

  async #checkCounts(): Promise<number> {
    const findings = this.#findings;
    const { counts } = findings;
    await this.#count(this.#fixes.errors);
    await this.#dropPlaces();
    const before = { ...counts };
    const { rebuild, highest } = await this.#compare(nothing);
    if (!this.#fixes.leaks) return highest;
    if (rebuild && this.#fixes.errors) return this.#rebuild();
    if (rebuild) {
      findings.error('rebuildNeeded', 'ERROR need to rebuild refcount structures');
      throw new CheckGivenUp('EIO');
    }
    if (counts.leaks + counts.corruptions === 0) return highest;
    Object.assign(counts, before);
    return (await this.#compare(this.#fixes)).highest;
  }

  /** Counts references, and reads the counts there are. */
  async #count(repairing: boolean): Promise<void> {
    const { signal, onProgress } = this.#options;
    const { header } = this.#image;
    this.#fileLength = await this.#image.file.size();
    const stored = await readStoredCounts(this.#image, this.#fileLength, signal);
    this.#stored = stored;
    this.#references = await countReferences(this.#image, this.#snapshots, this.#fileLength, {
      findings: this.#findings,
      stored,
      threads: this.#options.queues ?? 1,
      repairing,
      signal,
      onL1Entry:
        onProgress === undefined
          ? undefined
          : (doneBytes) => {
              onProgress({ doneBytes, totalBytes: header.size });
            },
    });
    for (const { cluster, length } of this.#options.held ?? []) {
      this.#references.found.increment(cluster, length);
    }
  }

  /** Takes their impossible places from the entries that keep no data there. */
  async #dropPlaces(): Promise<void> {
    const { entries, file, geometry } = this.#image;
    const { counts } = this.#findings;
    for (const { tableOffset, at } of this.#references.droppable) {
      if (!(await this.#isTableAlone(tableOffset))) {
        counts.corruptions++;
        continue;
      }
      const entry = new Uint8Array(geometry.l2EntrySize);
      await file.read(entry, tableOffset + at);
      entries.dropHost(new DataView(entry.buffer), 0);
      await file.write(entry, tableOffset + at);
      counts.corruptionsFixed++;
    }
    if (this.#references.droppable.length > 0) await file.flush();
  }

  /**
   * Compares the counts in the file with the references, and puts right what it may.
   *
   * @returns whether a count is missing that only a rebuild can give, and the last cluster in use
   */
  async #compare(fixes: Fixes): Promise<{ rebuild: boolean; highest: number }> {
    const findings = this.#findings;
    const { found } = this.#references;
    const stored = this.#stored.counts;
    const end = Math.max(this.#image.geometry.clusters(this.#fileLength), found.highest() + 1);
    const highest = this.#highest(end);
    const editor = new RefcountEditor(this.#image);
    let { rebuild } = this.#references;
    let unreadableUpTo = 0;
    const others = new TurnOfOthers();
    for (const cluster of stored.differences(found)) {
      if (others.due) await others.take();
      // A repair goes on to its next durable step.
      if (fixes === nothing) this.#options.signal?.throwIfAborted();
      // What is counted but not there takes no space.
      if (cluster >= end) break;
      this.#reportUnreadable(unreadableUpTo, cluster);
      unreadableUpTo = cluster;
      if (!this.#isKnown(cluster)) continue;
      const count = stored.get(cluster);
      const references = found.get(cluster);
      const exact = this.#stored.exact(cluster);
      const fact = `cluster ${cluster} refcount=${exact} reference=${references}`;
      const isLeak = count > references;
      if (count === 0) rebuild = true;
      if (count !== 0 && (isLeak ? fixes.leaks : fixes.errors)) {
        findings.repair(isLeak ? 'leak' : 'countTooLow', `Repairing ${fact}`);
        await editor.set(cluster, references);
        this.#stored.set(cluster, references);
        if (isLeak) findings.counts.leaksFixed++;
        else findings.counts.corruptionsFixed++;
      } else if (isLeak) {
        findings.leak(`Leaked ${fact}`);
      } else {
        findings.corruption(count === 0 ? 'uncounted' : 'countTooLow', `ERROR ${fact}`);
      }
    }
    this.#reportUnreadable(unreadableUpTo, end);
    if (fixes.leaks) await editor.finish();
    return { rebuild, highest };
  }

  #reportUnreadable(from: number, to: number): void {
    const { refcountsPerBlock } = this.#image.geometry;
    for (const block of this.#stored.unreadable) {
      const first = Math.max(from, block * refcountsPerBlock);
      const end = Math.min(to, (block + 1) * refcountsPerBlock);
      for (let cluster = first; cluster < end; cluster++) {
        const message = `Can't get refcount for cluster ${cluster}: Input/output error`;
        this.#findings.error('unreadableCount', message);
      }
    }
  }

  /** The last cluster in use, as far as counts are known; the header's at least. */
  #highest(end: number): number {
    const { found } = this.#references;
    let highest = Math.max(found.highest(), this.#stored.counts.highest(end), 0);
    while (highest > 0 && !this.#isKnown(highest)) highest--;
    return highest;
  }

  /** Whether the reference count of a cluster could be read. */
  #isKnown(cluster: number): boolean {
    const { unreadable } = this.#stored;
    if (unreadable.size === 0) return true;
    return !unreadable.has(Math.floor(cluster / this.#image.geometry.refcountsPerBlock));
  }

  /** Writes all counts anew, then counts again and frees what the old structures took. */
  async #rebuild(): Promise<number> {
    const findings = this.#findings;
    const { counts } = findings;
    findings.note('rebuild', 'Rebuilding refcount structure');
    const before = { ...counts };
    this.#keepDanglingNearby();
    await rebuildRefcounts(this.#image, this.#references.found, this.#fileLength);
    // Given up before their successors are made: they are what takes most of the memory.
    this.#references = { ...this.#references, found: new PackedCounts(0) };
    this.#stored = new StoredCounts(new PackedCounts(0));
    // What kept the old counts from being read is gone with them.
    Object.assign(counts, { corruptions: 0, leaks: 0, checkErrors: 0 });
    findings.forgetStatistics();
    await this.#count(false);
    const kept = { ...counts };
    const again = await this.#compare({ leaks: true, errors: false });
    if (again.rebuild) {
      findings.note('rebuildNeeded', 'ERROR rebuilt refcount structure is still broken');
    }
    const freshLeaks = counts.leaks;
    Object.assign(counts, kept);
    counts.corruptionsFixed += Math.max(0, before.corruptions - counts.corruptions);
    counts.leaksFixed += Math.max(0, before.leaks - counts.leaks);
    counts.leaks += freshLeaks;
    return again.highest;
  }

  /**
   * References beyond the file's end get the clusters they mean, if new structures could come to lie
   * there: else a damaged entry would point at these.
   */
  #keepDanglingNearby(): void {
    const { geometry } = this.#image;
    const { found, dangling } = this.#references;
    const end = Math.max(geometry.clusters(this.#fileLength), found.highest() + 1);
    const blocks = Math.ceil(end / geometry.refcountsPerBlock) + 1;
    const near = end + 2 * (blocks + geometry.clusters(blocks * 8)) + 16;
    for (const { first, clusters } of dangling) {
      if (first < near) found.increment(first, Math.min(clusters, near - first));
    }
  }

  async #checkCopied(): Promise<void> {
    const { counts } = this.#findings;
    const { leaks, errors } = this.#fixes;
    const { geometry } = this.#image;
    // Where only leaks are repaired, the flags are if the counts they follow are beyond doubt.
    const repairing =
      errors || (leaks && counts.checkErrors + counts.corruptions + counts.leaks === 0);
    const changed = counts.leaksFixed + counts.corruptionsFixed > 0;
    if (!this.#references.copiedSuspect && !changed) return;
    await checkCopiedFlags(this.#image, {
      findings: this.#findings,
      count: (cluster) => {
        if (!this.#isKnown(cluster)) return undefined;
        const isBeyond = cluster >= geometry.clusters(this.#fileLength);
        if (isBeyond) return readCount(this.#image, cluster);
        return this.#stored.exact(cluster);
      },
      repairing,
      isTableAlone: (hostOffset) => this.#isTableAlone(hostOffset),
      fileLength: this.#fileLength,
      signal: this.#options.signal,
    });
  }

  /** Whether nothing but L1 entries refers to the cluster of an L2 table. */
  async #isTableAlone(hostOffset: number): Promise<boolean> {
    const { clusterSize } = this.#image.geometry;
    if (hostOffset % clusterSize !== 0) return false;
    const cluster = hostOffset / clusterSize;
    const references = this.#references.found.get(cluster);
    if (references === 1) return true;
    this.#tableReferences ??= await this.#countTableReferences();
    return references > 0 && this.#tableReferences.get(cluster) === references;
  }

  async #countTableReferences(): Promise<ReadonlyMap<number, number>> {
    const { geometry, l1 } = this.#image;
    const references = new Map<number, number>();
    const count = (table: DataView): void => {
      for (let index = 0; index < table.byteLength / 8; index++) {
        const cluster = l2TableOffset(table, index) / geometry.clusterSize;
        if (this.#references.found.get(Math.floor(cluster)) < 2) continue;
        references.set(cluster, (references.get(cluster) ?? 0) + 1);
      }
    };
    count(l1);
    for (const snapshot of this.#snapshots.snapshots) {
      if (l1TableFault(geometry, snapshot) !== undefined) continue;
      count(await this.#image.readTable(snapshot.l1Offset, snapshot.l1Entries * 8));
    }
    return references;
  }

  /** Writes the snapshot table to a new place, then frees the old one. */
  async #rewriteSnapshots(): Promise<void> {
    const { file, geometry, header } = this.#image;
    const { snapshots } = this.#findings;
    const bytes = encodeSnapshots(this.#snapshots.snapshots, header.size);
    const old = { offset: header.snapshotsOffset, length: this.#snapshots.lengthBytes };
    const clusters = geometry.clusters(bytes.length);
    const first = await this.#allocate(clusters);
    await file.write(bytes, first * geometry.clusterSize);
    await file.flush();
    const hostOffset = clusters === 0 ? 0 : first * geometry.clusterSize;
    await this.#image.moveSnapshots(hostOffset, this.#snapshots.snapshots.length);
    // A table that is said to end beyond the file was not counted.
    const wasCounted = old.offset + old.length - this.#fileLength < geometry.clusterSize;
    if (wasCounted) await this.#lower(old.offset, old.length);
    snapshots.corruptionsFixed += snapshots.corruptions;
    snapshots.corruptions = 0;
  }

  /** Counts the first gap of so many clusters, durably. @returns its first cluster */
  async #allocate(clusters: number): Promise<number> {
    const stored = this.#stored.counts;
    const { found } = this.#references;
    const editor = new RefcountEditor(this.#image);
    let first = 0;
    for (;;) {
      first = Math.max(stored.nextFree(first), found.nextFree(first));
      const end = first + clusters;
      const used = Math.min(stored.nextUsed(first, end), found.nextUsed(first, end));
      if (used === end) break;
      first = used + 1;
    }
    found.increment(first, clusters);
    if (editor.canSet(first) && editor.canSet(first + clusters - 1)) {
      for (let index = 0; index < clusters; index++) {
        await editor.set(first + index, 1);
        this.#stored.set(first + index, 1);
      }
      await editor.finish();
    } else {
      await rebuildRefcounts(this.#image, found, this.#fileLength);
    }
    return first;
  }

  /** Takes one reference from every cluster that a range touches. */
  async #lower(hostOffset: number, length: number): Promise<void> {
    if (length === 0) return;
    const { geometry } = this.#image;
    const editor = new RefcountEditor(this.#image);
    const first = Math.floor(hostOffset / geometry.clusterSize);
    for (let cluster = first; cluster < geometry.clusters(hostOffset + length); cluster++) {
      const count = this.#stored.counts.get(cluster);
      if (count === 0 || !editor.canSet(cluster)) continue;
      await editor.set(cluster, count - 1);
      this.#stored.set(cluster, count - 1);
    }
    await editor.finish();
  }
}
