/** The typed loader of the native addon; nothing else. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createRequire, packageFolder } from '../package-folder.js';

/** Facts about a file that `openFile` opened; `file` names it in every other call. */
export interface OpenedFile {
  readonly file: number;
  readonly blockDevice: boolean;
  /** Alignment in bytes of offsets and lengths; 1 without O_DIRECT. */
  readonly requestAlignment: number;
  readonly device: number;
  readonly inode: number;
  readonly detectsHoles: boolean;
}

/** Bits of `openFile`'s flags. */
export const OpenFlag = {
  write: 1,
  create: 2,
  /** O_DIRECT */
  direct: 4,
  /** Every change is durable when it completes. */
  durable: 8,
  /** Behave as if the file system knew no fallocate(2). */
  refuseFallocate: 16,
} as const;

/** A native ring; see native/ring.h for the table it shares with us. */
export interface NativeRing {
  readonly usesUring: boolean;
  /** Starts `pending[0..count)`. @returns how many slots of `completed` have ended */
  submit(count: number): number;
  /** Holds memory until the slot's operation has ended. @returns the address of its first byte */
  hold(slot: number, memory: ArrayBuffer): number;
  /** Has the slot's next operation come after all of this order that were submitted before. */
  joinOrder(slot: number, order: NativeCopyOrder): void;
  /** Has the slot's next operation, one of ciphers, use this one. */
  useCipher(slot: number, cipher: NativeSectorCipher): void;
  /** Sets a slot's buffers for a vectored operation. @returns their length in bytes */
  setVector(slot: number, buffers: readonly Uint8Array[]): number;
  /** Waits for what is under way, drops the rest, and reports nothing any more. */
  close(): void;
}

/** An order of copies; see native/copy-order.h. */
export interface NativeCopyOrder {
  /** Gives room in bytes, which is used after what was given before. */
  offer(start: number, length: number, isZero: boolean): void;
}

/** A cipher of sectors; see native/sector-cipher.h. */
export interface NativeSectorCipher {
  /** Enciphers or deciphers here and now. @returns 0, or a negated errno */
  run(encrypts: boolean, input: Uint8Array, output: Uint8Array, sector: number): number;
}

/** A descriptor that is watched. */
export interface NativeWatch {
  /** Calls nothing any more. */
  close(): void;
}

/** What the addon exports. A negative number as a result is a negated errno. */
export interface Addon {
  openFile(path: string | Uint8Array, flags: number, mode: number): OpenedFile | number;
  /** Takes another reference for this thread. @returns false if the file is no longer open */
  retainFile(file: number): boolean;
  fileSize(file: number): number;
  allocatedSize(file: number): number;
  /**
   * @param startsData whether data began at the offset when that was looked up last
   * @returns the end of the run that the offset lies in: `-end - 1` for a hole, 0 for a hole up to
   *   the end of the file, otherwise data; `Number.MAX_SAFE_INTEGER` where nobody knows
   */
  seekRun(file: number, offset: number, startsData: boolean): number;
  /** Takes or drops a shared lock on one byte (F_OFD_SETLK of fcntl(2)). */
  lockByte(file: number, byte: number, lock: boolean): number;
  /** @returns 1 if another open file holds a lock on this byte, 0 if none does */
  testByte(file: number, byte: number): number;

  /**
   * Asks the file system for blocks without copy on write, and for extents of a size in bytes.
   * @returns 0, or the errno of the second
   */
  setFileHints(file: number, nocow: boolean, extentSize: number): number;
  /** @returns the extent size that was asked for, in bytes; 0 if none was */
  extentSizeHint(file: number): number;

  /** Whether a file can share blocks of another (FICLONERANGE of ioctl(2)). */
  canClone(from: number, to: number): boolean;

  /**
   * Moves the position of a descriptor of the process, which need not be of `openFile`.
   * @returns where the next write(2) goes on, in bytes
   */
  movePosition(descriptor: number, distanceBytes: number): number;

  createRing(
    engine: number,
    table: Float64Array,
    pending: Int32Array,
    completed: Int32Array,
    onCompletions: (count: number) => void,
  ): NativeRing | number;
  /**
   * @param granule bytes that places are multiples of; 0 if every copy has its own
   * @param isShared see `CopyRule`
   */
  createCopyOrder(granule: number, isShared: boolean | undefined): NativeCopyOrder;
  /** Address of a view's first byte. */
  addressOf(view: Uint8Array | Float64Array): number;
  /** Keeps memory alive as long as what it gives is, even if the ArrayBuffer gives it away. */
  holdMemory(memory: ArrayBuffer): object;

  isZero(view: Uint8Array): boolean;
  /**
   * Lengths in bytes of alternating runs of data and zeroes, data first; runs end at multiples of
   * the granularity.
   * @returns how many lengths were stored, or -1 if there is no room for them all
   */
  zeroRuns(view: Uint8Array, granularity: number, lengths: Int32Array): number;

  /**
   * Sets a word when this thread ends, however it ends, before anything it holds is given back.
   *
   * @param members a count that is raised by one in the same step, unless it is zero
   * @returns what `keepWord` takes, or 0 if `members` was zero and nothing was done
   */
  setWordAtEnd(words: Int32Array, index: number, value: number, members?: Int32Array): number;
  /** Takes `setWordAtEnd` back. */
  keepWord(note: number): void;

  /**
   * Starts this program anew in place of itself, with the same arguments and open standard streams
   * and a variable in its environment. @returns only if it cannot be: a negated errno
   */
  restartWith(name: string, value: string): number;

  /** Another descriptor of the same open file. @returns a negated errno if there can be none */
  duplicateDescriptor(descriptor: number): number;
  closeDescriptor(descriptor: number): void;
  /** read(2). @returns bytes */
  readDescriptor(descriptor: number, into: Uint8Array): number;
  /** writev(2), of one or two buffers. @returns bytes */
  writeDescriptor(descriptor: number, bytes: Uint8Array, more?: Uint8Array): number;
  /** Two connected Unix sockets, of which the second is inherited by programs that are started. */
  connectedSockets(ends: Int32Array): number;
  /**
   * Mounts a FUSE file system at a file or a folder, which takes the right to (mount(2)).
   *
   * @param options but for `fd`
   * @returns a descriptor to serve it with
   */
  mountFuse(path: string, options: string, isReadOnly: boolean): number;
  /** Another descriptor for the same mount, by which another thread can serve it. */
  cloneFuse(descriptor: number): number;
  unmount(path: string): number;

  /** Has one descriptor stand for the same open file as another (dup2(2)). */
  replaceDescriptor(descriptor: number, by: number): number;
  /** Has this thread run on these processors alone (sched_setaffinity(2)). */
  pinThread(processors: Int32Array): number;
  /**
   * Receives from a Unix socket without waiting.
   *
   * @param descriptors receives those that came along, and -1 after the last
   * @returns bytes; 0 at the end
   */
  receiveMessage(socket: number, into: Uint8Array, descriptors: Int32Array): number;
  /** Sends to a Unix socket without waiting. @returns bytes */
  sendMessage(socket: number, bytes: Uint8Array, descriptors: Int32Array): number;
  /** Calls back whenever a descriptor can be read from; the count of an eventfd is taken first. */
  watchDescriptor(
    descriptor: number,
    isEvent: boolean,
    onReadable: () => void,
  ): NativeWatch | number;
  /** Adds one to the count of an eventfd. */
  signalEvent(descriptor: number): number;

  /** Maps a part of a file for reading and writing, together with others; unmapped with the ArrayBuffer. */
  mapMemory(descriptor: number, offset: number, length: number): ArrayBuffer | number;
  /** @returns a descriptor of memory that can be mapped, all zeroes, which is the caller's to close */
  createMemory(lengthBytes: number): number;
  /** Pages of all mappings of the process that were taken away by others, and touched after that. */
  lostPages(): number;
  /** Whether none of them belongs to this mapping. */
  isMemoryWhole(memory: ArrayBuffer): boolean;

  /**
   * A cipher of sectors by OpenSSL's names of ciphers.
   *
   * @param iv what its vectors are made of, as native/sector-cipher.h numbers it
   * @param isXts whether `name` is the ECB cipher of XTS, whose tweaks are the vectors
   * @param makers ciphers of ECB that make the vectors, at most two, each followed by its key
   * @returns undefined for a cipher that is not known
   */
  createSectorCipher(
    name: string,
    key: Uint8Array,
    iv: number,
    isXts: boolean,
    ...makers: readonly (string | Uint8Array)[]
  ): NativeSectorCipher | undefined;

  /** Whether the program carries a zlib that the codecs found. */
  readonly hasZlib: boolean;
  /** Whether it carries an OpenSSL that ciphers of sectors are made of. */
  readonly hasOpenSsl: boolean;
}

/** What loading the addon gave. */
interface Loading {
  readonly addon: Addon | undefined;
  /** Why there is none. */
  readonly problem: string | undefined;
}

/** Programs that are not Node, and end in a crash when they load the addon. */
function foreignRuntime(): string | undefined {
  const versions: Readonly<Record<string, string | undefined>> = process.versions;
  return ['bun', 'deno'].find((name) => versions[name] !== undefined);
}

function load(): Loading {
  const without = (problem: string): Loading => ({ addon: undefined, problem });
  if (process.env['COWHERD_NO_ADDON'] === '1') return without('COWHERD_NO_ADDON is set');
  const runtime = foreignRuntime();
  if (runtime !== undefined) return without(`${runtime} does not run it`);
  if (packageFolder === undefined) return without("the package is not installed where the program's bundle lies");
  const require = createRequire(packageFolder);
  const system = `${process.platform}-${process.arch}`;
  let problem = `there is none for ${system}`;
  for (const place of [`prebuilt/${system}/cowherd.node`, 'build/Release/cowherd.node']) {
    const file = fileURLToPath(new URL(place, packageFolder));
    if (!existsSync(file)) continue;
    try {
      const addon = require(file) as Addon;
      // Without it, memory could be freed under a request.
      if ('holdMemory' in addon) return { addon, problem: undefined };
      problem = 'this version of Node offers no way to hold the memory of buffers';
    } catch (error) {
      // Made for another system or libc; the next one may do.
      [problem] = (error instanceof Error ? error.message : String(error)).split('\n');
    }
  }
  return without(problem);
}

const loading = load();

/** The addon, or undefined where none loads (or `COWHERD_NO_ADDON=1` is set). */
export const addon: Addon | undefined = loading.addon;
/** Why there is no addon. */
export const addonProblem: string | undefined = loading.problem;
