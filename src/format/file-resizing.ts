/** Another size for a disk that lies in its file as it is, behind whatever the file begins with. */
import type { Node } from '../engine/queues/node.js';
import { problemWith } from '../errors.js';
import { preallocate } from '../storage/preallocate.js';
import type { StorageFile } from '../storage/storage.js';
import type { DiskResizing } from './driver.js';

/** @param begin where in the file the disk begins, in bytes */
export function fileResizing(file: StorageFile, node: Node, begin = 0): DiskResizing {
  return {
    async check(size, preallocation) {
      const { filename, limits } = file;
      const refuse = (why: string): never => {
        throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why);
      };
      if (preallocation === 'metadata') refuse("Preallocation mode 'metadata' unsupported");
      if (!limits.blockDevice) return;
      if (preallocation !== 'off') {
        refuse(`Preallocation mode '${preallocation}' unsupported for this non-regular file`);
      }
      if (begin + size > (await file.size())) refuse('Cannot grow device files');
      if (size < node.size) refuse('Cannot resize device files');
    },
    async grow(size, preallocation, signal) {
      const old = begin + node.size;
      const end = begin + size;
      if (preallocation !== 'falloc' && preallocation !== 'full') {
        await file.truncate(end);
        return;
      }
      try {
        await preallocate(file, old, end - old, preallocation, signal);
      } catch (error) {
        // As far as it has come the disk would be larger.
        await file.truncate(old);
        throw error;
      }
    },
    async finish(size) {
      if (!file.limits.blockDevice) await file.truncate(begin + size);
      await file.flush();
    },
  };
}
