/**
 * QEMU's image locks, so that QEMU and cowherd refuse to change one image together: byte-range
 * locks of the open file (F_OFD_SETLK of fcntl(2)) on the file itself. For each permission a user
 * holds it locks byte 100 + bit, for each it does not grant to others byte 200 + bit; all locks are
 * shared ones, and a conflict is found by looking whether anybody has locked the opposite byte.
 */
import { type CowherdError, cannotOpen } from '../../errors.js';
import type { Addon } from '../../native/addon.js';
import { errnoName } from '../../system-errors.js';
import { operationError } from './errno.js';

const held = 100;
const notShared = 200;

/** Permissions, as their bit and the name QEMU's messages use. */
const permissions = [
  { bit: 0, name: 'consistent read' },
  { bit: 1, name: 'write' },
  { bit: 2, name: 'write unchanged' },
  { bit: 3, name: 'resize' },
] as const;

const consistentRead = 1 << 0;
const write = 1 << 1;
const writeUnchanged = 1 << 2;
const resize = 1 << 3;

/** Errors that mean that this file cannot be locked at all, which is no reason not to use it. */
const unlockable = new Set(['EINVAL', 'ENOLCK', 'ENOSYS', 'EOPNOTSUPP']);

/** What a user of a file does with it, and lets others do meanwhile. */
export interface FileUse {
  readonly readOnly: boolean;
  /** Whether others may write meanwhile: true for one who reads a disk without tables of its own. */
  readonly sharesWriting: boolean;
}

/** How often the locks are asked for before the answer counts, and the longest pause between. */
const attempts = 6;
const longestPauseMs = 12;

/**
 * Takes the locks of a reader or a writer, which last until the open file is closed. Of several that
 * come at the same time each may see the others asking and give up; so whoever meets a conflict
 * lets go, and asks again a little later.
 *
 * @throws CowherdError ERR_COWHERD_LOCKED where another open file, of this process or another,
 *   holds a conflicting permission; nothing is undone, the caller closes the file
 */
export async function lockImage(
  addon: Addon,
  file: number,
  filename: string,
  use: FileUse,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const problem = tryLock(addon, file, filename, use);
    if (problem === undefined) return;
    if (attempt === attempts) throw conflict(filename, problem);
    for (const { bit } of permissions) {
      addon.lockByte(file, held + bit, false);
      addon.lockByte(file, notShared + bit, false);
    }
    const pauseMs = 1 + Math.random() * longestPauseMs;
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

/** @returns what is in the way, in QEMU's words */
function tryLock(
  addon: Addon,
  file: number,
  filename: string,
  { readOnly, sharesWriting }: FileUse,
): string | undefined {
  const wanted = readOnly ? consistentRead : consistentRead | write | resize;
  const shared = consistentRead | writeUnchanged | (sharesWriting ? write | resize : 0);
  // First lock, then look: of two that come at once, at least one sees the other.
  for (const { bit } of permissions) {
    if ((wanted & (1 << bit)) !== 0 && !lock(addon, file, filename, held + bit)) return undefined;
    if ((shared & (1 << bit)) === 0 && !lock(addon, file, filename, notShared + bit)) {
      return undefined;
    }
  }
  for (const { bit, name } of permissions) {
    if ((wanted & (1 << bit)) !== 0 && addon.testByte(file, notShared + bit) === 1) {
      return `Failed to get "${name}" lock`;
    }
  }
  for (const { bit, name } of permissions) {
    if ((shared & (1 << bit)) === 0 && addon.testByte(file, held + bit) === 1) {
      return `Failed to get shared "${name}" lock`;
    }
  }
  return undefined;
}

/** @returns false where files cannot be locked here at all */
function lock(addon: Addon, file: number, filename: string, byte: number): boolean {
  const error = addon.lockByte(file, byte, true);
  if (error === 0) return true;
  const name = errnoName(error);
  if (unlockable.has(name)) return false;
  if (name === 'EAGAIN' || name === 'EACCES') {
    throw conflict(filename, `Failed to lock byte ${byte}`);
  }
  throw operationError('lock', filename, byte, name);
}

function conflict(filename: string, reason: string): CowherdError {
  return cannotOpen(
    'ERR_COWHERD_LOCKED',
    filename,
    `${reason}\nIs another process using the image [${filename}]?`,
  );
}
