/** Unpacking bzip2, any number of streams one after the other. */
import { PassThrough, Readable } from 'node:stream';
import type { Unpack } from './unpack.js';

/** What unbzip2-stream says of checksums that do not match. */
const mismatch = 'Boom.';

/** See the file's comment. */
export const unpackBzip2: Unpack = async function* (packed) {
  const { default: unbzip2 } = await import('unbzip2-stream');
  const source = Readable.from(packed);
  const unpacked = new PassThrough();
  let causeOfSource: Error | undefined;
  source.once('error', (error) => {
    causeOfSource = error;
    unpacked.destroy(error);
  });
  // A stream of the first kind that Node had: it cannot be iterated, and failures do not pass it.
  const decoder = source.pipe(unbzip2());
  decoder.once('error', (error) => unpacked.destroy(error));
  decoder.pipe(unpacked);
  try {
    yield* unpacked as AsyncIterable<Uint8Array>;
  } catch (error) {
    if (causeOfSource !== undefined) throw causeOfSource;
    const { message } = error as Error;
    const isKnown = message === mismatch || error instanceof TypeError;
    throw isKnown ? new Error('it is cut off or damaged', { cause: error }) : error;
  } finally {
    source.destroy();
  }
};
