/**
 * The one place that decides what counts as a buffer: any view, or memory itself, by its bytes, of
 * whichever realm (tests of Jest run in one of their own).
 */
import { types } from 'node:util';
import { type CowherdError, givenAway, problemWith } from '../../errors.js';

/** What requests read into and write from. */
export type BufferLike = ArrayBufferView | ArrayBufferLike;

/**
 * The bytes of a buffer.
 *
 * @param filename the file whose guest bytes they are
 * @throws ERR_COWHERD_INVALID_ARGUMENT for anything else, for memory that was given away
 *   (transferred), and for memory that may shrink under a request (a resizable ArrayBuffer)
 */
export function bytesOf(buffer: unknown, filename: string): Uint8Array {
  const refusal = (why: string): CowherdError =>
    problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, `Invalid buffer: ${why}`);
  if (ArrayBuffer.isView(buffer)) {
    const memory = buffer.buffer as ArrayBufferLike & { readonly resizable?: boolean };
    if (memory.resizable === true) throw refusal('a resizable ArrayBuffer may shrink meanwhile');
    if (buffer.byteLength === 0 && isDetached(memory)) throw givenAway(filename);
    if (types.isUint8Array(buffer)) return buffer;
    return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }
  if (types.isAnyArrayBuffer(buffer)) {
    if (isDetached(buffer)) throw givenAway(filename);
    return bytesOf(new Uint8Array(buffer), filename);
  }
  throw refusal('a typed array, a DataView or an ArrayBuffer is expected');
}

/**
 * The bytes of each buffer of a list, as `bytesOf` has them.
 *
 * @throws ERR_COWHERD_INVALID_ARGUMENT
 */
export function bytesOfEach(buffers: unknown, filename: string): Uint8Array[] {
  if (Array.isArray(buffers)) return buffers.map((buffer) => bytesOf(buffer, filename));
  const why = 'Invalid buffers: a list of them is expected';
  throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
}

function isDetached(memory: ArrayBufferLike): boolean {
  if (memory.byteLength > 0) return false;
  try {
    return new Uint8Array(memory).byteLength > 0;
  } catch {
    return true;
  }
}
