/** Files and block devices of the host, through the native addon. */
import { hostPath } from '../../byte-names.js';
import { CowherdError, nameMemoryError, cannotOpen } from '../../errors.js';
import { type Addon, type NativeCopyOrder, OpenFlag, type OpenedFile } from '../../native/addon.js';
import {
  type CopyMemory,
  Operation,
  type EngineName,
  type Ring,
  type RingClient,
} from '../../native/ring.js';
import { acquireRing, releaseRing } from '../../native/thread-rings.js';
import { BaseFile } from '../base-file.js';
import { describeErrno, errnoName } from '../../system-errors.js';
import { openError, operationError } from './errno.js';
import { lockImage } from './file-posix-locks.js';
import { NativeCopier } from './native-copier.js';
import { OffloadCopier } from './offload-copier.js';
import type {
  AllocateMode,
  CacheMode,
  Completion,
  CopyRule,
  CopySegment,
  DataCopier,
  StorageFile,
  StorageHandle,
  StorageLimits,
  StorageCreateOptions,
  StorageOpenOptions,
  StorageStatus,
} from '../storage.js';

/** What another thread needs to use an open file too; can be cloned by structuredClone. */
export interface FilePosixHandle extends StorageHandle {
  readonly protocol: 'file';
  readonly backend: 'file-posix';
  readonly file: number;
  readonly readOnly: boolean;
  readonly cache: CacheMode;
  readonly aio: EngineName;
  readonly limits: StorageLimits;
}

/** Bytes, as QEMU has it: larger extents keep large images from falling to pieces. */
const defaultExtentSizeHint = 1024 * 1024;

/** Numbers of native/blocking-operation.cc. */
const allocateModes: Readonly<Record<AllocateMode, number>> = { falloc: 0, full: 1, keep: 2 };

/** Bytes that a thread compares at a time, of each side: they stay in the cache of its processor. */
const comparedBytes = 512 * 1024;

/** Words that follow "Could not" in messages. */
const attempts: Readonly<Record<Operation, string>> = {
  [Operation.read]: 'read from',
  [Operation.write]: 'write to',
  [Operation.readVector]: 'read from',
  [Operation.writeVector]: 'write to',
  [Operation.flush]: 'flush',
  [Operation.truncate]: 'resize',
  [Operation.allocate]: 'allocate space in',
  [Operation.writeZeroes]: 'write zeroes to',
  [Operation.discard]: 'discard',
  [Operation.copyRange]: 'copy to',
  [Operation.close]: 'close',
  [Operation.copyData]: 'copy to',
  [Operation.compareData]: 'read from',
  [Operation.zstdCompress]: 'compress',
  [Operation.zstdDecompress]: 'decompress',
  [Operation.deflate]: 'compress',
  [Operation.inflate]: 'decompress',
  [Operation.inflateZlib]: 'decompress',
  [Operation.encrypt]: 'encrypt',
  [Operation.decrypt]: 'decrypt',
};

/**
 * Opens a file or block device.
 * @throws CowherdError, worded as qemu-img words it
 */
export function openFilePosix(
  addon: Addon,
  filename: string,
  options: StorageOpenOptions,
): Promise<FilePosix> {
  const readOnly = options.readOnly ?? false;
  return open(addon, filename, options, readOnly ? 0 : OpenFlag.write);
}

/** Creates a file, or empties it once its locks are taken. Permissions are 0644 less the umask. */
export async function createFilePosix(
  addon: Addon,
  filename: string,
  options: StorageCreateOptions,
): Promise<FilePosix> {
  const file = await open(
    addon,
    filename,
    { ...options, readOnly: false },
    OpenFlag.write | OpenFlag.create,
  );
  try {
    if (!file.limits.blockDevice) {
      // After a truncation ext4 writes a file to the disk when it is closed, so that what it replaced is
      // not lost: a new file replaces nothing. Blocks may be reserved beyond the end of an empty one.
      if ((await file.size()) > 0 || (await file.allocatedSize()) > 0) await file.truncate(0);
      file.setHints(options);
    }
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The same open file for this thread, by a handle from another. */
export function attachFilePosix(addon: Addon, handle: FilePosixHandle): FilePosix {
  const ring = ringFor(handle.filename, handle.aio);
  if (!addon.retainFile(handle.file)) {
    releaseRing(ring);
    throw new CowherdError('ERR_COWHERD_CLOSED', `'${handle.filename}' is closed`, {
      filename: handle.filename,
    });
  }
  return new FilePosix(addon, ring, handle);
}

async function open(
  addon: Addon,
  filename: string,
  options: StorageOpenOptions,
  access: number,
): Promise<FilePosix> {
  const cache = options.cache ?? 'writeback';
  const aio = options.aio ?? 'auto';
  const ring = ringFor(filename, aio);
  let flags = access;
  if (bypassesPageCache(cache)) flags |= OpenFlag.direct;
  if (cache === 'writethrough' || cache === 'directsync') flags |= OpenFlag.durable;
  if (process.env['COWHERD_NO_FALLOCATE'] === '1') flags |= OpenFlag.refuseFallocate;
  let opened: OpenedFile | number;
  try {
    opened = addon.openFile(hostPath(filename), flags, 0o644);
  } catch (error) {
    releaseRing(ring);
    throw nameMemoryError(error, filename);
  }
  if (typeof opened === 'number') {
    releaseRing(ring);
    throw openError(
      filename,
      errnoName(opened),
      (access & OpenFlag.create) === 0 ? 'open' : 'create',
    );
  }
  const readOnly = options.readOnly ?? false;
  const file = new FilePosix(addon, ring, {
    protocol: 'file',
    backend: 'file-posix',
    file: opened.file,
    filename,
    readOnly,
    cache,
    aio,
    limits: {
      requestAlignment: opened.requestAlignment,
      zeroInit: !opened.blockDevice,
      detectsHoles: opened.detectsHoles,
      blockDevice: opened.blockDevice,
    },
  });
  try {
    if (options.forceShare !== true && options.locking !== 'off') {
      const sharesWriting = readOnly && options.sharesWriting === true;
      await lockImage(addon, opened.file, filename, { readOnly, sharesWriting });
    }
  } catch (error) {
    await file.close();
    throw error;
  }
  return file;
}

function bypassesPageCache(cache: CacheMode): boolean {
  return cache === 'none' || cache === 'directsync';
}

function ringFor(filename: string, aio: EngineName): Ring {
  let ring: Ring | number;
  try {
    ring = acquireRing(aio);
  } catch (error) {
    throw nameMemoryError(error, filename);
  }
  if (typeof ring !== 'number') return ring;
  throw cannotOpen(
    'ERR_COWHERD_UNSUPPORTED',
    filename,
    `the ${aio} engine is not available here (${errnoName(ring)})`,
  );
}

function cannotCopy(target: StorageFile, source: StorageFile): CowherdError {
  return new CowherdError(
    'ERR_COWHERD_UNSUPPORTED',
    `'${source.filename}' cannot be copied to '${target.filename}' by the host`,
    { filename: source.filename },
  );
}

/** Settles a promise with the result of a ring's request. */
class ResultPromise implements RingClient<undefined> {
  readonly #file: FilePosix;
  readonly #resolve: (result: number) => void;
  readonly #reject: (error: Error) => void;

  constructor(file: FilePosix, resolve: (result: number) => void, reject: (error: Error) => void) {
    this.#file = file;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  requestEnded(_token: undefined, result: number, operation: Operation, offset: number): void {
    if (result >= 0) this.#resolve(result);
    else this.#reject(this.#file.failure(result, operation, offset));
  }
}

/** A stretch of the file whose state was looked up. */
interface KnownRun {
  readonly start: number;
  readonly end: number;
  readonly data: boolean;
}

/** See the file's comment. */
export class FilePosix extends BaseFile implements RingClient<Completion> {
  readonly limits: StorageLimits;
  readonly protocol: string;
  readonly #addon: Addon;
  readonly #ring: Ring;
  readonly #file: number;
  readonly #handle: FilePosixHandle;
  /** The last answer of `status`, as long as it may be repeated. */
  #knownRun: KnownRun | undefined;

  constructor(addon: Addon, ring: Ring, handle: FilePosixHandle) {
    super(handle.filename, handle.readOnly);
    this.limits = handle.limits;
    this.protocol = handle.limits.blockDevice ? 'host_device' : 'file';
    this.#addon = addon;
    this.#ring = ring;
    this.#file = handle.file;
    this.#handle = handle;
  }

  /** What `attachFilePosix` needs on another thread, as long as this queue or another is open. */
  override handle(): FilePosixHandle {
    return this.#handle;
  }

  openQueue(): FilePosix {
    return attachFilePosix(this.#addon, this.#handle);
  }

  // Not async, but for failures: both are single cheap system calls.
  // eslint-disable-next-line @typescript-eslint/require-await
  async size(): Promise<number> {
    return this.#checked(this.#addon.fileSize(this.#file));
  }

  extentSizeHint(): number | undefined {
    return this.#addon.extentSizeHint(this.#file) || undefined;
  }

  /** Gives the file system the hints that a new file is to have; what it does not know is no error. */
  setHints({ nocow = false, extentSizeHint, onWarning }: StorageCreateOptions): void {
    const result = this.#addon.setFileHints(
      this.#file,
      nocow,
      extentSizeHint ?? defaultExtentSizeHint,
    );
    if (result === 0 || (extentSizeHint ?? 0) === 0) return;
    onWarning?.(`Failed to set extent size hint: ${describeErrno(errnoName(result))}`);
  }

  // eslint-disable-next-line @typescript-eslint/require-await
  async allocatedSize(): Promise<number> {
    return this.#checked(this.#addon.allocatedSize(this.#file));
  }

  /** @internal */
  requestEnded(completion: Completion, result: number, operation: Operation, offset: number): void {
    this.end();
    completion.complete(result >= 0 ? null : this.failure(result, operation, offset));
  }

  /** @internal The error for a negated errno. */
  failure(result: number, operation: Operation, offset: number): CowherdError {
    const place = operation === Operation.flush || operation === Operation.close;
    return operationError(
      attempts[operation],
      this.filename,
      place ? undefined : offset,
      errnoName(result),
    );
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.#ring.transfer(this, completion, Operation.read, this.#file, buffer, offset);
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    if (this.#knownRun !== undefined) this.#forgetHole();
    this.#ring.transfer(this, completion, Operation.write, this.#file, buffer, offset);
  }

  protected doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    return this.#transferVector(Operation.readVector, buffers, offset);
  }

  protected doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    this.#forgetHole();
    return this.#transferVector(Operation.writeVector, buffers, offset);
  }

  protected async doFlush(): Promise<void> {
    if (this.#handle.cache === 'unsafe') return;
    await this.#operate(Operation.flush, 0, 0, 0);
  }

  protected async doTruncate(size: number, reserve: boolean): Promise<void> {
    this.#knownRun = undefined;
    if (!this.limits.blockDevice) {
      await this.#operate(Operation.truncate, size, 0, reserve ? 1 : 0);
    } else if (size > (await this.size())) {
      throw new CowherdError(
        'ERR_COWHERD_UNSUPPORTED',
        `Could not resize '${this.filename}': a block device has a fixed size`,
        { filename: this.filename },
      );
    }
  }

  protected async doAllocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    this.#knownRun = undefined;
    await this.#operate(Operation.allocate, offset, length, allocateModes[mode]);
  }

  protected async doWriteZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    this.#knownRun = undefined;
    await this.#operate(Operation.writeZeroes, offset, length, unmap ? 1 : 0);
    this.#knownRun = undefined;
  }

  protected async doDiscard(offset: number, length: number): Promise<boolean> {
    const zeroes = await this.#operate(Operation.discard, offset, length, 0);
    this.#knownRun = undefined;
    return zeroes === 1;
  }

  protected doStatus(offset: number, length: number): StorageStatus {
    let run = this.#knownRun;
    if (run === undefined || offset < run.start || offset >= run.end) {
      run = this.#lookUpRun(offset, run?.data === false && offset === run.end);
      // Data may be reported once too often; a hole only while nobody can have filled it.
      if (run.data || this.readOnly) this.#knownRun = run;
    }
    return { data: run.data, length: Math.min(length, run.end - offset) };
  }

  protected async doCopyFrom(
    source: StorageFile,
    sourceOffset: number,
    offset: number,
    length: number,
  ): Promise<boolean> {
    if (!(source instanceof FilePosix) || source.closing) return false;
    this.#forgetHole();
    source.begin();
    try {
      const copied = await this.#operate(
        Operation.copyRange,
        offset,
        length,
        0,
        sourceOffset,
        source.#file,
      );
      return copied === 1;
    } finally {
      source.end();
    }
  }

  override canCloneFrom(source: StorageFile): boolean {
    return source instanceof FilePosix && this.#addon.canClone(source.#file, this.#file);
  }

  override dataCopier(rule: CopyRule): DataCopier {
    // Through the gate of a direct file, each write has to know its place beforehand.
    if (bypassesPageCache(this.#handle.cache)) return super.dataCopier(rule);
    const order = this.#addon.createCopyOrder(rule.granule, rule.isShared);
    const copier = new NativeCopier(this, order, rule);
    return rule.offload === true && rule.granule === 0 ? new OffloadCopier(this, copier) : copier;
  }

  /**
   * @internal Copies data into this file, as `copyData` of the ring has it.
   *
   * @param segments of files of this backend, or zeroes
   * @param memory receives the segments, and where they were written
   * @throws CowherdError if nothing or not all was copied
   */
  async copyData(
    order: NativeCopyOrder,
    segments: readonly CopySegment[],
    offset: number,
    length: number,
    sparseSize: number,
    memory: CopyMemory,
  ): Promise<void> {
    const refusal = this.changeRefusal(offset, length);
    if (refusal !== undefined) throw refusal;
    this.#forgetHole();
    const held = [this, ...this.#noteSegments(segments, memory.numbers, 1)];
    await this.#withHeld(held, (client) => {
      this.#ring.copyData(client, this.#file, offset, length, order, memory, sparseSize);
    });
  }

  /**
   * @internal Whether segments hold the same bytes as others, as `compareData` of the ring has it.
   *
   * @param length bytes of either
   * @throws CowherdError if that cannot be told
   */
  async hasSameData(
    segments: readonly CopySegment[],
    others: readonly CopySegment[],
    length: number,
  ): Promise<boolean> {
    const othersAt = 1 + 3 * segments.length;
    const numbers = new Float64Array(othersAt + 3 * others.length);
    numbers[0] = comparedBytes;
    const held = this.#noteSegments(segments, numbers, 1);
    held.push(...this.#noteSegments(others, numbers, othersAt));
    const result = await this.#withHeld(held, (client) => {
      this.#ring.compareData(client, this.#file, length, { numbers }, othersAt);
    });
    return result === 0;
  }

  /** Writes segments down for the ring. @returns their files @throws CowherdError for foreign ones */
  #noteSegments(
    segments: readonly CopySegment[],
    numbers: Float64Array,
    from: number,
  ): FilePosix[] {
    const files: FilePosix[] = [];
    let next = from;
    for (const { file, offset, length } of segments) {
      numbers[next] = 0;
      if (file !== undefined) {
        if (!(file instanceof FilePosix) || file.closing) throw cannotCopy(this, file);
        files.push(file);
        numbers[next] = file.#file;
      }
      numbers[next + 1] = offset;
      numbers[next + 2] = length;
      next += 3;
    }
    return files;
  }

  /** Runs an operation for which files have to stay open. */
  async #withHeld(
    held: readonly FilePosix[],
    start: (client: RingClient<undefined>) => void,
  ): Promise<number> {
    for (const file of held) file.begin();
    try {
      return await new Promise<number>((resolve, reject) => {
        start(new ResultPromise(this, resolve, reject));
      });
    } finally {
      for (const file of held) file.end();
    }
  }

  protected async doClose(): Promise<void> {
    try {
      await this.#operate(Operation.close, 0, 0, 0);
    } finally {
      releaseRing(this.#ring);
    }
  }

  #forgetHole(): void {
    if (this.#knownRun?.data === false) this.#knownRun = undefined;
  }

  #lookUpRun(offset: number, startsData: boolean): KnownRun {
    if (!this.limits.detectsHoles) {
      const size = this.#checked(this.#addon.fileSize(this.#file));
      if (offset < size) return { start: offset, end: size, data: true };
      return { start: offset, end: Infinity, data: false };
    }
    const end = this.#addon.seekRun(this.#file, offset, startsData);
    if (end > 0) return { start: offset, end, data: true };
    return { start: offset, end: end === 0 ? Infinity : -end - 1, data: false };
  }

  async #transferVector(
    operation: Operation,
    buffers: readonly Uint8Array[],
    offset: number,
  ): Promise<void> {
    await new Promise<number>((resolve, reject) => {
      const client = new ResultPromise(this, resolve, reject);
      this.#ring.transferVector(client, undefined, operation, this.#file, buffers, offset);
    });
  }

  #operate(
    operation: Operation,
    offset: number,
    length: number,
    parameter: number,
    sourceOffset = 0,
    source = 0,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#ring.operate(
        new ResultPromise(this, resolve, reject),
        undefined,
        operation,
        this.#file,
        offset,
        length,
        parameter,
        sourceOffset,
        source,
      );
    });
  }

  #checked(result: number): number {
    if (result >= 0) return result;
    throw operationError('stat', this.filename, undefined, errnoName(result));
  }
}
