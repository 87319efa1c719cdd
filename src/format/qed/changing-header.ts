/** What the header of an open QED image can come to say: another size, and another name below. */
import { bytesOfName } from '../../byte-names.js';
import { problemWith } from '../../errors.js';
import { maxQedBackingNameBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { BackingReference } from '../driver.js';
import type { ChangingHeader } from '../mapped/mapping.js';
import {
  type QedHeader,
  type QedName,
  type QedNaming,
  isQedSize,
  planQedName,
  writeQedName,
  writeQedSize,
} from './header.js';

/** See the file's comment. */
export function changingQedHeader(header: QedHeader, file: StorageFile): ChangingHeader {
  const { filename } = file;
  return {
    checkSize(size, old, preallocation) {
      const refuse = (why: string): never => {
        throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why);
      };
      if (preallocation !== 'off') refuse(`Unsupported preallocation mode '${preallocation}'`);
      if (!isQedSize(size, header)) {
        const why = 'Invalid image size specified';
        throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
      }
      if (size < old) refuse('Shrinking images is currently not supported');
    },
    writeSize: (size) => writeQedSize(file, size),
    async checkBacking(backing) {
      await planned(file, qedName(backing));
    },
    async writeBacking(backing) {
      const name = qedName(backing);
      await writeQedName(file, await planned(file, name), name);
    },
  };
}

function qedName(backing: BackingReference | undefined): QedName {
  return { bytes: bytesOfName(backing?.name ?? ''), isRaw: backing?.format === 'raw' };
}

/** @throws ERR_COWHERD_INVALID_ARGUMENT for a name that the header cannot hold */
async function planned(file: StorageFile, name: QedName): Promise<QedNaming> {
  const refuse = (why: string): never => {
    const operation = 'name backing';
    throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', file.filename, why, { operation });
  };
  if (name.bytes.length > maxQedBackingNameBytes) refuse('Invalid argument');
  return (await planQedName(file, name)) ?? refuse('No space left in the file header');
}
