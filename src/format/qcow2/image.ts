/** An open qcow2 image: made from its header, it gives queues and reports, and ends cleanly. */
import { ControlWord } from '../../engine/words/control-block.js';
import type { QueueCounters } from '../../engine/queues/counters.js';
import type { Node } from '../../engine/queues/node.js';
import { heldByQueues } from '../../engine/queues/queue-line.js';
import { CowherdError, type CowherdErrorCode, cannotOpen, problemWith } from '../../errors.js';
import { maxL1TableBytes, maxOffset } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { CheckOptions, CheckReport } from '../check.js';
import type {
  BackingReader,
  BackingReference,
  FormatHandle,
  FormatImage,
  FormatOpenOptions,
  FormatQueue,
  ImageFiles,
  StoredExtent,
} from '../driver.js';
import {
  type DiskKey,
  type PayloadCipher,
  forgetKey,
  payloadCipher,
} from '../encryption/disk-key.js';
import { DescribedQueue } from '../encryption/described-queue.js';
import type { FormatFacts } from '../facts.js';
import { asHostOffset } from './layout/geometry.js';
import { openEncryption } from './contents/encryption.js';
import { Qcow2VmState } from './change/vm-state.js';
import { shareCaches } from './metadata/cache-shares.js';
import { storedExtents } from './report/stored-extents.js';
import {
  Compatible,
  CryptMethod,
  Incompatible,
  type Qcow2Header,
  backingFormatOf,
  decodeHeader,
} from './layout/header.js';
import { checkQcow2 } from './check/check.js';
import { qcow2Facts } from './report/info.js';
import {
  type Qcow2Memory,
  Qcow2Metadata,
  geometryOf,
  loadQcow2Memory,
} from './metadata/metadata.js';
import { Qcow2Queue } from './requests/queue.js';
import { describeChoice, findSnapshot, readSnapshots } from './contents/snapshots.js';
import { Qcow2Amendment } from './change/amend.js';
import { ExclusiveChanges } from './change/exclusive.js';
import { Qcow2Bitmaps, checkBitmaps } from './change/bitmaps.js';
import { Qcow2BackingChange } from './change/backing-name.js';
import { Emptying, forgetDisk } from './change/empty.js';
import { Qcow2Resizing } from './change/resize.js';
import { Qcow2Snapshots } from './change/snapshots.js';
import { reclaimAll } from './requests/reclaim.js';

/** How an image is to be opened. */
export interface Qcow2OpenOptions extends FormatOpenOptions {
  readonly dataFile: StorageFile | undefined;
  readonly node: Node;
  /** Of this thread's first queue; what its requests share is counted there too. */
  readonly counters: QueueCounters;
}

/** What another thread needs to have an image open too; can be cloned by structuredClone. */
export interface Qcow2Handle extends FormatHandle {
  readonly format: 'qcow2';
  readonly header: Qcow2Header;
  readonly memory: Qcow2Memory;
  /** Virtual size in bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly lazyRefcounts: boolean;
  readonly inOrder: boolean;
  readonly reserveAhead: boolean;
  /** Of a disk that is encrypted, and not only described. */
  readonly diskKey: DiskKey | undefined;
}

/** Reads and checks the header of an image; what a check reports and repairs is let pass for one. */
export async function readQcow2Header(
  file: StorageFile,
  options: { readonly forCheck?: boolean } = {},
): Promise<Qcow2Header> {
  const probe = new Uint8Array(512);
  await file.read(probe, 0);
  const length = await file.size();
  // The header cluster is not larger than 2 MiB, whatever a hostile header says.
  const clusterBits = Math.min(21, new DataView(probe.buffer).getUint32(20));
  const bytes = new Uint8Array(Math.min(length, Math.max(512, 2 ** clusterBits)));
  await file.read(bytes, 0);
  return decodeHeader(bytes, file.filename, options);
}

/**
 * Opens an image whose header was read. One that was not closed cleanly is repaired before it is
 * written to.
 */
export async function openQcow2(
  file: StorageFile,
  headerRead: Qcow2Header,
  options: Qcow2OpenOptions,
): Promise<Qcow2Image> {
  let header = headerRead;
  const { filename } = file;
  const refuse = (code: CowherdErrorCode, why: string): never => {
    throw cannotOpen(code, filename, why);
  };
  const diskKey = await openEncryption(file, header, options);
  const has = (bit: number): boolean => (header.incompatibleFeatures & bit) !== 0;
  const forWriting = !options.readOnly && !options.forCheck;
  if (forWriting && has(Incompatible.corrupt)) {
    refuse('ERR_COWHERD_CORRUPT', 'Image is corrupt; cannot be opened read/write');
  }
  if (forWriting && has(Incompatible.dirty)) {
    const { onFinding } = options;
    const report = await checkQcow2(file, header, { repair: 'all', onFinding });
    if (report.failure !== undefined || report.checkErrors > 0) {
      refuse('ERR_COWHERD_CORRUPT', 'Could not repair dirty image: Input/output error');
    }
    header = await readQcow2Header(file);
  }
  if (forWriting) await checkBitmaps(file, header);
  const geometry = geometryOf(header);
  const caches = shareCaches(options.cacheSizes, geometry.clusterSize, filename);
  let l1 = { offset: asHostOffset(header.l1TableOffset), entries: header.l1Entries };
  const { size } = header;
  const { lazyRefcounts = (header.compatibleFeatures & Compatible.lazyRefcounts) !== 0 } = options;
  if (lazyRefcounts && header.version !== 3) {
    refuse(
      'ERR_COWHERD_INVALID_ARGUMENT',
      'Lazy refcounts require a qcow2 image of version 3 (compat 1.1)',
    );
  }
  // A check reads the table in its own way, and says what is wrong with it.
  const { snapshots } = options.forCheck ? { snapshots: [] } : await readSnapshots(file, header);
  if (options.snapshot !== undefined) {
    const snapshot = findSnapshot(snapshots, options.snapshot);
    if (snapshot === undefined) {
      throw new CowherdError(
        'ERR_COWHERD_NOT_FOUND',
        `Can't find snapshot '${describeChoice(options.snapshot)}' in '${filename}'`,
        { operation: 'load snapshot', why: "Can't find snapshot", filename },
      );
    }
    l1 = { offset: asHostOffset(snapshot.l1Offset), entries: snapshot.l1Entries };
    const { clusterSize } = geometry;
    const isTooLarge = l1.entries * 8 > maxL1TableBytes;
    if (isTooLarge || l1.offset % clusterSize !== 0 || l1.offset > maxOffset - maxL1TableBytes) {
      const what = isTooLarge ? 'too large' : 'offset invalid';
      const why = `Snapshot L1 table ${what}`;
      throw problemWith('ERR_COWHERD_CORRUPT', filename, `Failed to load snapshot: ${why}`, {
        operation: 'load snapshot',
        why,
      });
    }
  }
  const { overlapCheck } = options;
  const level = forWriting ? overlapCheck : undefined;
  const memory = await loadQcow2Memory(file, geometry, header, l1, caches, level);
  const { dataFile, node, counters, inOrder, reserveAhead = true } = options;
  const readOnly = !forWriting;
  const handle: Qcow2Handle = {
    format: 'qcow2',
    header,
    memory,
    size,
    readOnly,
    lazyRefcounts,
    inOrder,
    reserveAhead,
    diskKey,
  };
  return attachQcow2(file, dataFile, handle, node, counters);
}

/** The image of a handle, for this thread. */
export function attachQcow2(
  file: StorageFile,
  dataFile: StorageFile | undefined,
  handle: Qcow2Handle,
  node: Node,
  counters: QueueCounters,
): Qcow2Image {
  const { header, memory } = handle;
  const metadata = new Qcow2Metadata(file, dataFile, header, memory, node, counters);
  return new Qcow2Image(metadata, dataFile, handle);
}

/** A qcow2 image open on this thread. */
export class Qcow2Image implements FormatImage {
  readonly size: number;
  readonly clusterSize: number;
  readonly metadata: Qcow2Metadata;
  readonly granule: number;
  readonly resizing: Qcow2Resizing;
  readonly vmState: Qcow2VmState | undefined;
  readonly snapshots: Qcow2Snapshots;
  readonly bitmaps: Qcow2Bitmaps;
  readonly backingChange: Qcow2BackingChange;
  readonly amendment: Qcow2Amendment;
  readonly #dataFile: StorageFile | undefined;
  readonly #changes: ExclusiveChanges;
  readonly #handle: Qcow2Handle;
  readonly #cipher: PayloadCipher | undefined;
  /** This thread's queues. */
  readonly #queues = new Set<Qcow2Queue>();
  #prepared: Promise<void> | undefined;
  /** Whether counts on disk are not those in memory any more. */
  #isRenewed = false;

  constructor(metadata: Qcow2Metadata, dataFile: StorageFile | undefined, handle: Qcow2Handle) {
    this.metadata = metadata;
    this.size = handle.size;
    this.clusterSize = metadata.geometry.clusterSize;
    this.#dataFile = dataFile;
    this.#handle = handle;
    this.#cipher = handle.diskKey && payloadCipher(handle.diskKey);
    this.granule = metadata.geometry.subclusterSize;
    this.bitmaps = new Qcow2Bitmaps(metadata);
    this.resizing = new Qcow2Resizing(metadata, dataFile, this.bitmaps, () => this.#prepare());
    if (dataFile === undefined) this.vmState = new Qcow2VmState(metadata, this.resizing);
    this.backingChange = new Qcow2BackingChange(metadata);
    this.#changes = new ExclusiveChanges(metadata, handle.lazyRefcounts);
    this.snapshots = new Qcow2Snapshots(metadata, this.#changes);
    this.amendment = new Qcow2Amendment(metadata, this.snapshots, this.#changes, handle.diskKey);
  }

  get backing(): BackingReference | undefined {
    const { header } = this.metadata.headerFile;
    const { backingFile } = header;
    return backingFile === undefined
      ? undefined
      : { name: backingFile, format: backingFormatOf(header) };
  }

  /** What `attachQcow2` needs on another thread, as long as some thread has the image open. */
  handle(): Qcow2Handle {
    return this.#handle;
  }

  openQueue(
    [file, dataFile]: ImageFiles,
    backing: BackingReader | undefined,
    counters: QueueCounters,
  ): FormatQueue {
    const { header } = this.metadata.headerFile;
    if (header.cryptMethod !== CryptMethod.none && this.#cipher === undefined) {
      return new DescribedQueue(file.filename);
    }
    const queue = new Qcow2Queue({
      metadata: this.metadata,
      header,
      file,
      dataFile,
      backing,
      counters,
      inOrder: this.#handle.inOrder,
      reserveAhead: this.#handle.reserveAhead,
      cipher: this.#cipher,
      beforeFirstChange: () => this.#prepare(),
      onClosed: () => this.#queues.delete(queue),
    });
    this.#queues.add(queue);
    return queue;
  }

  async *extents(
    offset: number,
    length: number,
    signal?: AbortSignal,
  ): AsyncGenerator<StoredExtent> {
    if (!this.#handle.readOnly) await this.metadata.flushOrder.flush();
    const { file } = this.metadata;
    const dataFile = this.#dataFile ?? file;
    const externalData = this.#dataFile !== undefined;
    const isEncrypted = this.metadata.headerFile.header.cryptMethod !== CryptMethod.none;
    yield* storedExtents(
      { metadata: this.metadata, file, dataFile, externalData, isEncrypted, signal },
      offset,
      length,
    );
  }

  /** The facts that `info` reports. */
  facts(): Promise<FormatFacts> {
    return qcow2Facts(this.metadata.file, this.metadata.headerFile.header);
  }

  /** Runs `section` while no queue of any thread runs a request, on metadata that are on disk. */
  runAlone<Result>(section: () => Promise<Result>): Promise<Result> {
    return this.metadata.runAlone(async () => {
      if (!this.#handle.readOnly) await this.metadata.flushOrder.flushAll();
      return section();
    });
  }

  /** Checks the image, and repairs it if wanted, while no queue of any thread runs a request. */
  check(options: CheckOptions): Promise<CheckReport> {
    const { file, control, limbo } = this.metadata;
    return this.runAlone(async () => {
      const header = await readQcow2Header(file, { forCheck: true });
      const waiting = limbo.entries().map(({ cluster, count }) => ({ cluster, length: count }));
      const held = [...heldByQueues(control), ...waiting];
      return checkQcow2(file, header, { ...options, held });
    });
  }

  async endAt(size: number): Promise<void> {
    const { headerFile, flushOrder, geometry } = this.metadata;
    await flushOrder.flush();
    // The table's cluster is counted, and so has to be that of something.
    await headerFile.changeDisk({ size, l1Entries: Math.max(1, geometry.l1Entries(size)) });
  }

  async empty(): Promise<boolean> {
    const emptying = Emptying.of(this.metadata);
    if (emptying === undefined) return false;
    await this.runAlone(async () => {
      await this.#prepare();
      await emptying.forget();
      this.#isRenewed = true;
      await emptying.renew();
    });
    return true;
  }

  forget(): Promise<void> {
    return this.#changes.run(() => forgetDisk(this.metadata, this.#changes));
  }

  async settle(): Promise<void> {
    const { control, corruptMark, flushOrder, poison } = this.metadata;
    if (this.#handle.readOnly || control.load(ControlWord.changed) === 0) return;
    // What such an image holds in memory is not to be trusted on disk; `close` says so.
    if (!poison.isSet && !corruptMark.isSet) await flushOrder.flush();
  }

  async close(last: boolean): Promise<void> {
    try {
      await this.#close(last);
    } finally {
      if (last && this.#handle.diskKey !== undefined) forgetKey(this.#handle.diskKey);
    }
  }

  async #close(last: boolean): Promise<void> {
    const { metadata } = this;
    const { allocator, control, corruptMark, flushOrder, headerFile, poison } = metadata;
    if (this.#handle.readOnly) return;
    poison.check();
    if (control.load(ControlWord.changed) === 0) return;
    // What was not flushed before the damage was met is not written any more.
    corruptMark.check();
    if (!last) return;
    if (this.#isRenewed) {
      await headerFile.setDirty(false);
      return;
    }
    await this.resizing.giveBackAbandoned();
    await this.#changes.settle();
    await allocator.lowerSuperseded();
    flushOrder.endLaziness();
    await flushOrder.flush();
    // What else there is to be ended is, even if the bitmaps stay marked as being in use.
    const [stored] = await Promise.allSettled([this.bitmaps.end()]);
    await flushOrder.flush();
    try {
      const { file, counters } = metadata;
      if ((await reclaimAll({ metadata, file, counters })) > 0) await flushOrder.flush();
    } catch (error) {
      await corruptMark.note(error);
      throw error;
    }
    await headerFile.setDirty(false);
    // Last, so that nothing that is cut off is still counted.
    await allocator.trim();
    if (stored.status === 'rejected') throw stored.reason;
  }

  /** Prepares once, and again after a failure. */
  async #prepare(): Promise<void> {
    const { control } = this.metadata;
    const shared = this.#prepared;
    this.#prepared ??= this.#prepareForChanges();
    try {
      await (shared === undefined
        ? this.#prepared
        : control.watch(ControlWord.headerMutex, shared));
    } catch (error) {
      this.#prepared = undefined;
      throw error;
    }
  }

  /** Before guest data change: clears what would become untrue, and sets the dirty bit if lazy. */
  async #prepareForChanges(): Promise<void> {
    const { control, headerFile } = this.metadata;
    control.store(ControlWord.changed, 1);
    if (headerFile.version !== 3) return;
    await headerFile.clearUnknownAutoclear();
    await this.bitmaps.record();
    if (this.#handle.lazyRefcounts) await headerFile.setDirty(true);
  }
}
