/**
 * Files through what Node offers, for where the addon does not load. Missing here: image locks,
 * O_DIRECT, hole detection, hole punching and block device sizes.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { promisify } from 'node:util';
import { hostPath } from '../../byte-names.js';
import { CowherdError, givenAway } from '../../errors.js';
import { errnoName } from '../../system-errors.js';
import { BaseFile } from '../base-file.js';
import { openError, operationError } from './errno.js';
import type {
  AllocateMode,
  CacheMode,
  Completion,
  StorageHandle,
  StorageLimits,
  StorageOpenOptions,
  StorageStatus,
} from '../storage.js';

const openAsync = promisify(fs.open);
const closeAsync = promisify(fs.close);
const fstatAsync = promisify(fs.fstat);
const fdatasyncAsync = promisify(fs.fdatasync);
const ftruncateAsync = promisify(fs.ftruncate);

/** Bytes that go through memory of our own at a time. */
const pieceBytes = 1 << 20;

/**
 * Memory for a transfer. Node's own threads would go on with a caller's buffer after its memory was
 * given away and freed, so they never get it.
 */
function ownMemory(bytes: number): Uint8Array {
  return new Uint8Array(bytes);
}

/** Bytes that one call of `node:fs` has transferred. */
function transferred(
  call: (end: (error: Error | null, count: number) => void) => void,
): Promise<number> {
  return new Promise((resolve, reject) => {
    call((error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
  });
}

/** Zeroes written at a time. */
const zeroes = new Uint8Array(1 << 20);

/** What another thread needs to open the file too; can be cloned by structuredClone. */
export interface FileNodeHandle extends StorageHandle {
  readonly protocol: 'file';
  readonly backend: 'file-node';
  readonly readOnly: boolean;
  readonly cache: CacheMode;
  /** Of the thread that gave the handle, as long as that has the file open. */
  readonly descriptor: number;
  /** Which file it is, whatever its name is now. */
  readonly device: number;
  readonly inode: number;
}

/** The descriptor that the queues of one file share. */
interface SharedDescriptor {
  readonly descriptor: number;
  readonly device: number;
  readonly inode: number;
  users: number;
}

/**
 * Opens a file.
 *
 * @param filename what it is called, if that is not the place where it is opened
 * @throws CowherdError, worded as qemu-img words it
 */
export function openFileNode(
  place: string,
  options: StorageOpenOptions,
  filename = place,
): Promise<FileNode> {
  const { O_RDONLY, O_RDWR } = fs.constants;
  return open(place, options, options.readOnly ? O_RDONLY : O_RDWR, filename);
}

/** Creates a file, or empties it. Permissions are 0644 less the umask. */
export function createFileNode(filename: string, options: StorageOpenOptions): Promise<FileNode> {
  const { O_RDWR, O_CREAT, O_TRUNC } = fs.constants;
  return open(filename, { ...options, readOnly: false }, O_RDWR | O_CREAT | O_TRUNC);
}

/**
 * The same file for this thread, by a handle from another: the one that is open, not the one that has
 * its name by now.
 *
 * @throws ERR_COWHERD_CLOSED if it cannot be found any more
 */
export async function attachFileNode(handle: FileNodeHandle): Promise<FileNode> {
  const { filename, descriptor, device, inode } = handle;
  // Linux finds an open file by its descriptor (proc_pid_fd(5)); elsewhere its name may still do.
  const places = [`/proc/self/fd/${descriptor}`, filename];
  for (const place of places) {
    if (place !== filename && !fs.existsSync(hostPath(place))) continue;
    const file = await openFileNode(place, handle, filename);
    const { device: foundDevice, inode: foundInode } = file.handle();
    if (foundDevice === device && foundInode === inode) return file;
    await file.close();
  }
  const message = `'${filename}' is not the file any more that another thread has open`;
  throw new CowherdError('ERR_COWHERD_CLOSED', message, { filename });
}

async function open(
  place: string,
  options: StorageOpenOptions,
  access: number,
  filename = place,
): Promise<FileNode> {
  const cache = options.cache ?? 'writeback';
  const durable = cache === 'writethrough' || cache === 'directsync';
  // Non-blocking, so that a pipe without a writer is refused rather than waited for.
  const flags = access | fs.constants.O_NONBLOCK | (durable ? fs.constants.O_DSYNC : 0);
  let descriptor: number;
  try {
    descriptor = await openAsync(hostPath(place), flags, 0o644);
  } catch (error) {
    const attempt = (access & fs.constants.O_CREAT) === 0 ? 'open' : 'create';
    throw openError(filename, nameOf(error), attempt, error);
  }
  let facts: fs.Stats;
  try {
    facts = await fstatAsync(descriptor);
    if (!facts.isFile()) {
      throw openError(filename, facts.isDirectory() ? 'EISDIR' : 'ESPIPE', 'open');
    }
  } catch (error) {
    await closeAsync(descriptor).catch(() => undefined);
    if (error instanceof CowherdError) throw error;
    throw operationError('stat', filename, undefined, nameOf(error), error);
  }
  const shared = { descriptor, device: facts.dev, inode: facts.ino, users: 0 };
  return new FileNode(filename, options.readOnly ?? false, cache, shared);
}

/** Symbolic errno of an error of `node:fs`. */
function nameOf(error: unknown): string {
  const { errno, code = 'EIO' } = error as NodeJS.ErrnoException;
  // Node has no names for some.
  return errno === undefined ? code : errnoName(errno);
}

/** See the file's comment. */
export class FileNode extends BaseFile {
  readonly protocol = 'file';
  readonly limits: StorageLimits = {
    requestAlignment: 1,
    zeroInit: true,
    detectsHoles: false,
    blockDevice: false,
  };
  readonly #cache: CacheMode;
  readonly #shared: SharedDescriptor;

  constructor(filename: string, readOnly: boolean, cache: CacheMode, shared: SharedDescriptor) {
    super(filename, readOnly);
    this.#cache = cache;
    this.#shared = shared;
    shared.users += 1;
  }

  /** What `attachFileNode` needs on another thread. */
  override handle(): FileNodeHandle {
    return {
      protocol: 'file',
      backend: 'file-node',
      filename: this.filename,
      readOnly: this.readOnly,
      cache: this.#cache,
      descriptor: this.#shared.descriptor,
      device: this.#shared.device,
      inode: this.#shared.inode,
    };
  }

  openQueue(): FileNode {
    return new FileNode(this.filename, this.readOnly, this.#cache, this.#shared);
  }

  async size(): Promise<number> {
    return (await this.#facts()).size;
  }

  async allocatedSize(): Promise<number> {
    return (await this.#facts()).blocks * 512;
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.#read(buffer, offset), completion);
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.#write(buffer, offset), completion);
  }

  protected async doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    await settled(this.#placed(buffers, offset, (buffer, at) => this.#read(buffer, at)));
  }

  protected async doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    await settled(this.#placed(buffers, offset, (buffer, at) => this.#write(buffer, at)));
  }

  protected async doFlush(): Promise<void> {
    if (this.#cache === 'unsafe') return;
    try {
      await fdatasyncAsync(this.#shared.descriptor);
    } catch (error) {
      throw this.#failure('flush', undefined, error);
    }
  }

  protected async doTruncate(size: number): Promise<void> {
    try {
      await ftruncateAsync(this.#shared.descriptor, size);
    } catch (error) {
      throw this.#failure('resize', size, error);
    }
    await this.#makeDurable();
  }

  protected async doAllocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    if (mode === 'keep') {
      throw operationError('allocate space in', this.filename, offset, 'EOPNOTSUPP');
    }
    // All that can be reserved without touching data is what lies beyond the end.
    const from = mode === 'full' ? offset : Math.max(offset, await this.size());
    if (from < offset + length) await this.#writeZeroBytes(from, offset + length - from);
  }

  protected doWriteZeroes(offset: number, length: number): Promise<void> {
    return this.#writeZeroBytes(offset, length);
  }

  protected doDiscard(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected async doStatus(offset: number, length: number): Promise<StorageStatus> {
    const size = await this.size();
    if (offset >= size) return { data: false, length };
    return { data: true, length: Math.min(length, size - offset) };
  }

  protected doCopyFrom(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected async doClose(): Promise<void> {
    assert(this.#shared.users > 0, 'a file is closed that has no users');
    this.#shared.users -= 1;
    if (this.#shared.users > 0) return;
    try {
      await closeAsync(this.#shared.descriptor);
    } catch (error) {
      throw this.#failure('close', undefined, error);
    }
  }

  async #facts(): Promise<fs.Stats> {
    try {
      return await fstatAsync(this.#shared.descriptor);
    } catch (error) {
      throw this.#failure('stat', undefined, error);
    }
  }

  async #read(buffer: Uint8Array, offset: number): Promise<void> {
    const { descriptor } = this.#shared;
    const length = buffer.byteLength;
    for (let done = 0; done < length;) {
      const piece = ownMemory(Math.min(length - done, pieceBytes));
      let count: number;
      try {
        count = await transferred((end) => {
          fs.read(descriptor, piece, 0, piece.length, offset + done, end);
        });
      } catch (error) {
        throw this.#failure('read from', offset, error);
      }
      this.#refuseGivenAway(buffer, length);
      if (count === 0) {
        buffer.fill(0, done);
        return;
      }
      buffer.set(piece.subarray(0, count), done);
      done += count;
    }
  }

  async #write(buffer: Uint8Array, offset: number): Promise<void> {
    const { descriptor } = this.#shared;
    const length = buffer.byteLength;
    for (let done = 0; done < length;) {
      this.#refuseGivenAway(buffer, length);
      const piece = ownMemory(Math.min(length - done, pieceBytes));
      piece.set(buffer.subarray(done, done + piece.length));
      let count: number;
      try {
        count = await transferred((end) => {
          fs.write(descriptor, piece, 0, piece.length, offset + done, end);
        });
      } catch (error) {
        throw this.#failure('write to', offset, error);
      }
      if (count === 0) throw operationError('write to', this.filename, offset, 'ENOSPC');
      done += count;
    }
  }

  #refuseGivenAway(buffer: Uint8Array, length: number): void {
    if (buffer.byteLength !== length) throw givenAway(this.filename);
  }

  async #writeZeroBytes(offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += zeroes.byteLength) {
      await this.#write(
        zeroes.subarray(0, Math.min(zeroes.byteLength, length - done)),
        offset + done,
      );
    }
  }

  #placed(
    buffers: readonly Uint8Array[],
    offset: number,
    transfer: (buffer: Uint8Array, offset: number) => Promise<void>,
  ): Promise<void>[] {
    let at = offset;
    return buffers.map((buffer) => {
      const transferred = transfer(buffer, at);
      at += buffer.byteLength;
      return transferred;
    });
  }

  async #makeDurable(): Promise<void> {
    if (this.#cache === 'writethrough' || this.#cache === 'directsync') await this.doFlush();
  }

  #failure(attempt: string, offset: number | undefined, error: unknown): CowherdError {
    return operationError(attempt, this.filename, offset, nameOf(error), error);
  }
}

/** Waits for all, so that no buffer is in use any more. @throws what the first failed one threw */
async function settled(transfers: readonly Promise<void>[]): Promise<void> {
  for (const end of await Promise.allSettled(transfers)) {
    if (end.status === 'rejected') throw end.reason as Error;
  }
}
