/** Names that an image holds: UTF-8, ending at the first zero byte as QEMU reads them. */

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** The name in a field of bytes. */
export function decodeText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(end === -1 ? bytes : bytes.subarray(0, end));
}
