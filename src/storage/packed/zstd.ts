/** Unpacking zstd, any number of frames one after the other. */
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';
import type { Unpack } from './unpack.js';
import { throughTransform } from './through-transform.js';
import { ZstdFrames } from './zstd-frames.js';

/** Node's own decoder, since 22.15. */
const { createZstdDecompress } = zlib as { createZstdDecompress?: () => Transform };

/** Bytes given to the portable decoder at once: each may stand for many of the disk. */
const givenBytes = 4096;

/** See the file's comment. */
export const unpackZstd: Unpack = (packed) =>
  createZstdDecompress === undefined
    ? unpackPortably(packed)
    : throughTransform(packed, createZstdDecompress());

/** The decoder neither looks at checksums of content, nor tells frames of no content from others. */
async function* unpackPortably(packed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import('fzstd');
  const { default: loadHashes } = await import('xxhash-wasm');
  const hashes = await loadHashes();
  const frames = new ZstdFrames();
  let ready: Uint8Array[] = [];
  const newDecoder = (): InstanceType<typeof Decompress> =>
    new Decompress((piece) => {
      if (piece.length > 0) ready.push(piece);
    });
  let decoder = newDecoder();
  let digest = hashes.create64();
  let isWithin = false;
  for await (const piece of packed) {
    for (let at = 0; at < piece.length;) {
      const given = piece.subarray(at, at + givenBytes);
      const { length, isEnd, checksum } = frames.follow(given);
      decoder.push(given.subarray(0, length), isEnd);
      for (const unpacked of ready) digest.update(unpacked);
      if (checksum !== undefined && BigInt.asUintN(32, digest.digest()) !== BigInt(checksum)) {
        throw new Error('the checksum of its content does not match');
      }
      yield* ready;
      ready = [];
      at += length;
      isWithin = !isEnd;
      if (isWithin) continue;
      decoder = newDecoder();
      digest = hashes.create64();
    }
  }
  if (isWithin) throw new Error('it is cut off');
}
