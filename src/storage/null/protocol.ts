/** Disks that keep nothing, by QEMU's two names of them. */
import { cannotOpen } from '../../errors.js';
import { nullOpenOptions } from '../null-options.js';
import type { Protocol } from '../protocol.js';
import { NullFile, isNull } from './null-file.js';

/** See the file's comment. */
export const nullProtocols: readonly Protocol[] = ['null-co', 'null-aio'].map((name) => {
  const only = `${name}://`;
  return {
    name,
    openOptions: nullOpenOptions,
    nameOf: (take) => take('filename') ?? only,
    open: (filename, { readOnly = false, null: disk = {} }) => {
      if (filename.toLowerCase() !== only) {
        const why = `The only allowed filename for this driver is '${only}'`;
        throw cannotOpen('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
      }
      return Promise.resolve(new NullFile({ protocol: name, filename: only, disk, readOnly }));
    },
    attach: (handle) => {
      if (!isNull(handle)) throw new TypeError('a handle of another protocol');
      return Promise.resolve(new NullFile(handle));
    },
    // Each is a disk of its own, which nobody else can have open.
    identify: (filename) => Promise.resolve(`${filename}#${(opened += 1)}`),
  };
});

let opened = 0;
