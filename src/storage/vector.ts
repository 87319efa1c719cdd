/** Several buffers that stand for one. */

/** Total length of buffers in bytes. */
export function totalLength(buffers: readonly Uint8Array[]): number {
  let total = 0;
  for (const buffer of buffers) total += buffer.byteLength;
  return total;
}

/** Writes the bytes of several buffers into one. */
export function gather(buffers: readonly Uint8Array[], into: Uint8Array): void {
  let at = 0;
  for (const buffer of buffers) {
    into.set(buffer, at);
    at += buffer.length;
  }
}

/** Fills several buffers with the bytes of one. */
export function scatter(from: Uint8Array, buffers: readonly Uint8Array[]): void {
  let at = 0;
  for (const buffer of buffers) {
    buffer.set(from.subarray(at, at + buffer.length));
    at += buffer.length;
  }
}
