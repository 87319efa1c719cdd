/** Mounting a file: by the kernel itself where we may, else with the help of `fusermount3`. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstat, unlink, writeFile } from 'node:fs/promises';
import { CowherdError } from '../../errors.js';
import {
  closeDescriptor,
  connectedSockets,
  mountFuse,
  receiveMessage,
  unmount,
} from '../../native/descriptor.js';
import { describeErrno, errnoName } from '../../system-errors.js';
import { mostDataBytes } from './protocol.js';

/** How a file is mounted. */
export interface MountOptions {
  readonly readOnly: boolean;
  /** Whether other users see it too. */
  readonly allowOther: boolean;
}

/** A file that is mounted. */
export interface Mount {
  readonly path: string;
  /** By which it is served; the caller's. */
  readonly descriptor: number;
  readonly userId: number;
  readonly groupId: number;
  /** Ends it. */
  end(): Promise<void>;
  /** Removes the file that it was mounted on, if that was made for it; to be called when it has ended. */
  forget(): Promise<void>;
}

/**
 * Mounts a file at a path: on a file that is there, or one that is made for it.
 *
 * @throws CowherdError naming the path
 */
export async function mountFile(path: string, options: MountOptions): Promise<Mount> {
  const isMade = await makeFile(path);
  const removeMade = async (): Promise<void> => {
    if (isMade) await unlink(path).catch(() => undefined);
  };
  const [userId, groupId] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
  const other = options.allowOther ? ',allow_other' : '';
  try {
    const own = `rootmode=100000,user_id=${userId},group_id=${groupId},max_read=${mostDataBytes}${other}`;
    const result = mountFuse(path, own, options.readOnly);
    const isHelped = result < 0 && ['EPERM', 'EACCES'].includes(errnoName(result));
    const descriptor = isHelped ? await mountWithHelp(path, options) : result;
    if (descriptor < 0) throw cannotMount(path, describeErrno(errnoName(descriptor)));
    const end = async (): Promise<void> => {
      if (isHelped) await help(['-u', '-z', '--', path], []);
      else unmount(path);
    };
    return { path, descriptor, userId, groupId, end, forget: removeMade };
  } catch (error) {
    await removeMade();
    throw error;
  }
}

/** @returns whether there was none @throws CowherdError for what is no file */
async function makeFile(path: string): Promise<boolean> {
  try {
    await writeFile(path, '', { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') throw cannotMount(path, describeErrno(code), error);
  }
  const found = await lstat(path).catch(() => undefined);
  if (found?.isFile() === true) return false;
  throw cannotMount(path, 'what is there is no file');
}

/** @returns a descriptor @throws CowherdError with what the helper says */
async function mountWithHelp(path: string, options: MountOptions): Promise<number> {
  const ends = new Int32Array(2);
  const error = connectedSockets(ends);
  if (error < 0) throw cannotMount(path, describeErrno(errnoName(error)));
  const words = [
    ...[options.readOnly ? 'ro' : 'rw', 'nosuid', 'nodev', 'fsname=cowherd', 'subtype=cowherd'],
    ...[`max_read=${mostDataBytes}`, ...(options.allowOther ? ['allow_other'] : [])],
  ];
  try {
    const said = await help(['-o', words.join(','), '--', path], [ends[1]]);
    const descriptors = new Int32Array([-1, -1]);
    receiveMessage(ends[0], new Uint8Array(64), descriptors);
    if (descriptors[0] < 0) throw cannotMount(path, said);
    return descriptors[0];
  } finally {
    closeDescriptor(ends[0]);
    closeDescriptor(ends[1]);
  }
}

/** Runs the helper. @param inherited its descriptor 3, if any @returns what it said */
async function help(words: readonly string[], inherited: readonly number[]): Promise<string> {
  const child = spawn('fusermount3', words, {
    env: { ...process.env, _FUSE_COMMFD: '3' },
    stdio: ['ignore', 'ignore', 'pipe', ...inherited],
  });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
  try {
    await once(child, 'close');
  } catch {
    return 'it takes the right to mount, or the program fusermount3';
  }
  const [first] = said.trim().split('\n');
  return first.replace(/^fusermount3: /, '');
}

function cannotMount(path: string, reason: string, cause?: unknown): CowherdError {
  const options = { reason, filename: path, ...(cause instanceof Error && { cause }) };
  return new CowherdError('ERR_COWHERD_IO', `Could not mount '${path}': ${reason}`, options);
}
