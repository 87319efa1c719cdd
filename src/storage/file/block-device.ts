/** What the host says of block devices beside what can be asked of an open file. */
import { readFileSync, statSync } from 'node:fs';
import { hostPath } from '../../byte-names.js';
import { cannotOpen } from '../../errors.js';

/**
 * Refuses a block device that only reads: opened for writing it would fail with the first write.
 *
 * @throws ERR_COWHERD_READ_ONLY
 */
export function refuseReadOnlyDevice(path: string): void {
  if (!isReadOnlyDevice(path)) return;
  throw cannotOpen('ERR_COWHERD_READ_ONLY', path, 'The device is not writable: Permission denied');
}

function isReadOnlyDevice(path: string): boolean {
  try {
    const facts = statSync(hostPath(path), { bigint: true });
    if (!facts.isBlockDevice()) return false;
    const { rdev } = facts;
    const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
    const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
    return readFileSync(`/sys/dev/block/${major}:${minor}/ro`, 'latin1').startsWith('1');
  } catch {
    // Where the host does not tell, the first write does.
    return false;
  }
}
