/** Unpacking bzip2, any number of streams one after the other. */
import { Bzip2Error } from './bzip2-bits.js';
import { Bzip2Decoder } from './bzip2-decoder.js';
import type { Unpack } from './unpack.js';

/** See the file's comment. */
export const unpackBzip2: Unpack = async function* (packed) {
  const decoder = new Bzip2Decoder();
  try {
    for await (const piece of packed) yield* decoder.push(piece, false);
    yield* decoder.push(new Uint8Array(0), true);
  } catch (error) {
    if (!(error instanceof Bzip2Error)) throw error;
    throw new Error('it is cut off or damaged', { cause: error });
  }
};
