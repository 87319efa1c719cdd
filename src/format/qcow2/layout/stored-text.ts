/** Names that an image holds: UTF-8 as a rule, ending at the first zero byte as QEMU reads them. */
import { nameOfBytes } from '../../../byte-names.js';

/** The name in a field of bytes. */
export function decodeText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return nameOfBytes(end === -1 ? bytes : bytes.subarray(0, end));
}
