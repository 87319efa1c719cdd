/** Unpacking xz, any number of streams one after the other. */
import { ReadableStream } from 'node:stream/web';
import type { Unpack } from './unpack.js';

/** What xz-decompress's numbers mean (XZ Embedded, `enum xz_ret`). */
const reasons: Readonly<Record<string, string>> = {
  3: 'there is not enough memory for its dictionary',
  4: 'its dictionary is too large',
  5: 'it is damaged',
  6: 'it is packed in a way that is not supported',
  7: 'it is damaged',
  8: 'it is cut off or damaged',
};

/** See the file's comment. */
export const unpackXz: Unpack = async function* (packed) {
  const loaded = await import('xz-decompress');
  // It is a CommonJS module, of which Node finds the default alone.
  const { XzReadableStream } = 'default' in loaded ? loaded.default : loaded;
  try {
    yield* new XzReadableStream(ReadableStream.from(packed));
  } catch (error) {
    const code = /error code (\d+)/.exec(error instanceof Error ? error.message : '')?.[1];
    throw code === undefined
      ? error
      : new Error(reasons[code] ?? 'it is damaged', { cause: error });
  }
};
