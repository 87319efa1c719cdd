/** What whoever opens an image may do to it. */
import type { Permissions } from '../../engine/queues/node.js';
import type { StorageFile } from '../../storage/storage.js';
import type { OpenImageOptions } from '../api/options.js';

/** Whether nothing of an image is to be changed: its internal snapshots are only read. */
export function isForReading({ readOnly, snapshot }: OpenImageOptions): boolean {
  return readOnly === true || snapshot !== undefined;
}

/** The permissions at an image that lies in a file and is opened so. */
export function permissionsOf(file: StorageFile, options: OpenImageOptions): Permissions {
  const isChanged = !file.readOnly && !isForReading(options);
  const forCheck = options.forCheck === true;
  return { write: isChanged && !forCheck, repair: isChanged && forCheck };
}
