/** Unpacking zstd, any number of frames one after the other. */
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';
import type { Unpack } from './unpack.js';
import { throughTransform } from './through-transform.js';

/** Node's own decoder, since 22.15. */
const { createZstdDecompress } = zlib as { createZstdDecompress?: () => Transform };

/** Bytes given to the portable decoder at once: each may stand for many of the disk. */
const givenBytes = 4096;

/** See the file's comment. */
export const unpackZstd: Unpack = (packed) =>
  createZstdDecompress === undefined
    ? unpackPortably(packed)
    : throughTransform(packed, createZstdDecompress());

async function* unpackPortably(packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import('fzstd');
  let ready: Uint8Array[] = [];
  const decoder = new Decompress((piece) => {
    if (piece.length > 0) ready.push(piece);
  });
  for await (const piece of packed) {
    for (let at = 0; at < piece.length; at += givenBytes) {
      decoder.push(piece.subarray(at, at + givenBytes));
      yield* ready;
      ready = [];
    }
  }
  decoder.push(new Uint8Array(0), true);
  yield* ready;
}
