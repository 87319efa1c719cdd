/** Opens files of the host with the best backend that loads. */
import { existsSync } from 'node:fs';
import { hostPath } from '../../byte-names.js';
import { CowherdError, cannotOpen } from '../../errors.js';
import { addon, addonProblem } from '../../native/addon.js';
import { refuseReadOnlyDevice } from './block-device.js';
import { attachFileNode, createFileNode, type FileNodeHandle, openFileNode } from './file-node.js';
import {
  attachFilePosix,
  createFilePosix,
  type FilePosixHandle,
  openFilePosix,
} from './file-posix.js';
import type { StorageCreateOptions, StorageFile, StorageOpenOptions } from '../storage.js';

/** An open file as another thread can attach to it; can be cloned by structuredClone. */
export type FileHandle = FilePosixHandle | FileNodeHandle;

let warned = false;

function warnOnce(): void {
  if (warned) return;
  warned = true;
  process.emitWarning(
    `the native addon is not available (${addonProblem ?? 'unknown'}): files are not locked, not ` +
      'read past the page cache, and holes are neither found nor made',
    { code: 'COWHERD_NO_ADDON' },
  );
}

/** @throws ERR_COWHERD_UNSUPPORTED for an engine that only the addon has */
function refuseNativeEngine(path: string, { aio }: StorageOpenOptions): void {
  if (aio !== 'io_uring') return;
  throw cannotOpen(
    'ERR_COWHERD_UNSUPPORTED',
    path,
    'the io_uring engine is not available without the native addon',
  );
}

/** Whether files that are opened here are locked. */
export const locksFiles = addon !== undefined;

/** Whether whoever opens files, or started the program, does without locks. */
function doesWithoutLocks({ locking }: StorageOpenOptions): boolean {
  return locking === 'off' || process.env['COWHERD_LOCKING'] === 'off';
}

/** @throws ERR_COWHERD_UNSUPPORTED for a file that others may be changing, and that cannot be locked */
function refuseUnlocked(path: string, options: StorageOpenOptions): void {
  if (options.readOnly === true || doesWithoutLocks(options)) return;
  throw new CowherdError(
    'ERR_COWHERD_UNSUPPORTED',
    `Could not open '${path}': without the native addon (${addonProblem ?? 'unknown'}) it cannot be ` +
      "locked; COWHERD_LOCKING=off, or locking 'off', writes to it all the same",
    { filename: path },
  );
}

/**
 * Opens a regular file or block device.
 *
 * @throws CowherdError ERR_COWHERD_NOT_FOUND, ERR_COWHERD_ACCESS, ERR_COWHERD_LOCKED,
 *   ERR_COWHERD_UNSUPPORTED (no regular file, or an engine that is not available) or ERR_COWHERD_IO
 */
export async function openFile(
  path: string,
  options: StorageOpenOptions = {},
): Promise<StorageFile> {
  if (options.readOnly !== true) refuseReadOnlyDevice(path);
  if (addon !== undefined) return openFilePosix(addon, path, options);
  refuseNativeEngine(path, options);
  refuseUnlocked(path, options);
  warnOnce();
  return openFileNode(path, options);
}

/**
 * Creates a file, or empties one that nobody else has locked, and opens it for writing.
 * @throws CowherdError as `openFile` does
 */
export async function createFile(
  path: string,
  options: StorageCreateOptions = {},
): Promise<StorageFile> {
  refuseReadOnlyDevice(path);
  if (addon !== undefined) return createFilePosix(addon, path, options);
  refuseNativeEngine(path, options);
  // One that is there already may be in use.
  if (existsSync(hostPath(path))) refuseUnlocked(path, options);
  warnOnce();
  if ((options.extentSizeHint ?? 0) > 0) {
    options.onWarning?.('Failed to set extent size hint: the native addon is not available');
  }
  return createFileNode(path, options);
}

/** The open file of a handle, for this thread: the same descriptor and locks, a ring of its own. */
export async function attachFile(handle: FileHandle): Promise<StorageFile> {
  if (handle.backend === 'file-node') return attachFileNode(handle);
  if (addon !== undefined) return attachFilePosix(addon, handle);
  throw new CowherdError(
    'ERR_COWHERD_UNSUPPORTED',
    `Could not attach to '${handle.filename}': the native addon is not available on this thread`,
    { filename: handle.filename },
  );
}
