/** What the promises of storage files are told and tried with. */
import type { CowherdErrorCode } from '../../errors.js';
import type { StorageFile } from '../storage.js';

/** Tries one promise on a file that holds the given bytes. @throws AssertionError where it is broken */
export type Promised = (file: StorageFile, content: Uint8Array) => Promise<void>;

/** Promises by what they say. */
export type Promises = Readonly<Record<string, Promised>>;

/** Bytes that depend on their place, so that misplaced ones show. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) bytes[index] = index * 7 + (index >> 8) + seed;
  return bytes;
}

/** Bytes of a file, read into a buffer that holds others before. */
export async function contents(
  file: StorageFile,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const buffer = new Uint8Array(length).fill(0xee);
  await file.read(buffer, offset);
  return buffer;
}

/** What an error has to have, for `assert.rejects`. */
export function code(expected: CowherdErrorCode): { readonly code: CowherdErrorCode } {
  return { code: expected };
}

/** Offsets at which nothing can begin. */
export const wrongOffsets: readonly number[] = [-1, 0.5, NaN, Number.MAX_SAFE_INTEGER];
