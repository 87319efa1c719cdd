/** What is said of formats that are named and not read. */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { hostPath } from '../byte-names.js';
import { printable } from '../errors.js';
import { foreignFormats, isForeignFormat, probeBytes, recogniseFormat } from '../format/probe.js';

export { isForeignFormat } from '../format/probe.js';

/** Why an image cannot be opened in a format that is not read, in QEMU's words where it has them. */
export function formatRefusal(name: string, path: string): string {
  if (!isForeignFormat(name)) return `Unknown driver '${printable(name)}'`;
  const found = recogniseFormat(firstBytes(path));
  if (found !== name && name !== 'dmg') return `Image not in ${foreignFormats[name]} format`;
  return `The ${name} format is not supported`;
}

/** The bytes that a file begins with, as far as it can be read. */
function firstBytes(path: string): Uint8Array {
  const bytes = new Uint8Array(probeBytes);
  try {
    const file = openSync(hostPath(path), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      return bytes.subarray(0, readSync(file, bytes));
    } finally {
      closeSync(file);
    }
  } catch {
    // What keeps it from being read is not what is asked.
    return bytes;
  }
}
