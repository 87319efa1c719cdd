/**
 * The anti-forensic splitter of LUKS: a key is spread over so many stripes, all of which are needed to have it back,
 * that of a key which is overwritten hardly all can be left on a disk.
 */
import { createHash, randomBytes } from 'node:crypto';

/** Spreads a key over stripes of its length. */
export function splitKey(key: Uint8Array, stripes: number, hash: string): Uint8Array {
  const { length } = key;
  const split = new Uint8Array(length * stripes);
  split.set(randomBytes(length * (stripes - 1)));
  const block = diffused(split, length, stripes, hash);
  exclusiveOr(block, key);
  split.set(block, length * (stripes - 1));
  block.fill(0);
  return split;
}

/** The key that is spread over stripes. */
export function mergeKey(split: Uint8Array, stripes: number, hash: string): Uint8Array {
  const length = split.length / stripes;
  const block = diffused(split, length, stripes, hash);
  exclusiveOr(block, split.subarray(length * (stripes - 1)));
  return block;
}

/** What all stripes but the last come to. */
function diffused(split: Uint8Array, length: number, stripes: number, hash: string): Uint8Array {
  const block = new Uint8Array(length);
  for (let stripe = 0; stripe < stripes - 1; stripe++) {
    exclusiveOr(block, split.subarray(stripe * length, (stripe + 1) * length));
    diffuse(block, hash);
  }
  return block;
}

/** Replaces each part of a block, of a digest's length, by its digest, with the part's number in front. */
function diffuse(block: Uint8Array, hash: string): void {
  const number = new DataView(new ArrayBuffer(4));
  for (let at = 0, index = 0; at < block.length; index++) {
    number.setUint32(0, index);
    const digester = createHash(hash).update(new Uint8Array(number.buffer));
    const length = Math.min(digestBytes(hash), block.length - at);
    const part = block.subarray(at, at + length);
    part.set(digester.update(part).digest().subarray(0, length));
    at += length;
  }
}

const lengths = new Map<string, number>();

/** Bytes of the digests of a hash. */
export function digestBytes(hash: string): number {
  let length = lengths.get(hash);
  if (length === undefined) {
    length = createHash(hash).digest().length;
    lengths.set(hash, length);
  }
  return length;
}

function exclusiveOr(block: Uint8Array, other: Uint8Array): void {
  for (let at = 0; at < block.length; at++) block[at] ^= other[at];
}
