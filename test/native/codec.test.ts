/** Clusters compressed here are read by others, and the other way round; damage is an error. */
import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { test } from 'node:test';
import zlib from 'node:zlib';
import { decompress as fzstdDecompress } from 'fzstd';
import { addon } from '../../src/native/addon.js';
import type { CodecName } from '../../src/native/codec.js';
import { codecFor, inflateZlib } from '../../src/native/codecs.js';

const clusterBytes = 65_536;

/** Text with repetitions near and far. */
function compressible(): Uint8Array {
  const lines = Array.from({ length: 3000 }, (_, line) => `${line} ${(line * line) % 97} line\n`);
  return new Uint8Array(Buffer.from(lines.join('').padEnd(clusterBytes)).subarray(0, clusterBytes));
}

const hasZstd = addon !== undefined || 'zstdCompress' in zlib;
const names: readonly CodecName[] = hasZstd ? ['zlib', 'zstd'] : ['zlib'];

for (const name of names) {
  test(`${name}: what was compressed is decompressed, many at a time, padding ignored`, async () => {
    const codec = codecFor(name);
    const one = async (seed: number): Promise<void> => {
      const input = compressible();
      input.fill(seed, 1000, 2000);
      const output = new Uint8Array(clusterBytes).fill(0xcc);
      const length = await codec.compress(input, output);
      assert.ok(length > 0 && length < clusterBytes);
      const back = new Uint8Array(clusterBytes);
      await codec.decompress(output.subarray(0, length), back);
      assert.deepEqual(back, input);
      await codec.decompress(output.subarray(0, Math.min(length + 511, clusterBytes)), back.fill(0));
      assert.deepEqual(back, input);
    };
    await Promise.all(Array.from({ length: 50 }, (_, seed) => one(seed)));
  });

  test(`${name}: what does not shrink does not fit`, async () => {
    const input = randomFillSync(new Uint8Array(clusterBytes));
    const output = new Uint8Array(clusterBytes - 512);
    assert.equal(await codecFor(name).compress(input, output), -1);
  });

  test(`${name}: damaged, short and long input is an error`, async () => {
    const codec = codecFor(name);
    const output = new Uint8Array(clusterBytes);
    const length = await codec.compress(compressible(), output);
    const back = new Uint8Array(clusterBytes);
    const corrupt = { code: 'ERR_COWHERD_CORRUPT' };
    await assert.rejects(codec.decompress(output.subarray(0, length >> 1), back), corrupt);
    await assert.rejects(codec.decompress(new Uint8Array(0), back), corrupt);
    await assert.rejects(codec.decompress(new Uint8Array(1000).fill(0xff), back), corrupt);
    const tooLarge = new Uint8Array(clusterBytes * 2);
    await assert.rejects(codec.decompress(output.subarray(0, length), tooLarge), corrupt);
  });

  test(`${name}: levels differ`, async () => {
    const output = new Uint8Array(clusterBytes);
    const fast = await codecFor(name, 1).compress(compressible(), output);
    const small = await codecFor(name, 9).compress(compressible(), output);
    assert.ok(small < fast, `${small} < ${fast}`);
  });
}

test('zlib: reads any window, and its own fits in 4 KiB', async () => {
  const codec = codecFor('zlib');
  const back = new Uint8Array(clusterBytes);
  for (const windowBits of [9, 12, 15]) {
    await codec.decompress(zlib.deflateRawSync(compressible(), { windowBits }), back);
    assert.deepEqual(back, compressible());
  }
  const output = new Uint8Array(clusterBytes);
  const length = await codec.compress(compressible(), output);
  const narrow = zlib.inflateRawSync(output.subarray(0, length), { windowBits: 12 });
  assert.deepEqual(new Uint8Array(narrow), compressible());
});

test('zlib in its wrapping: padding is ignored, the checksum is not', async () => {
  const data = zlib.deflateSync(compressible());
  const back = new Uint8Array(clusterBytes);
  await inflateZlib(data, back);
  assert.deepEqual(back, compressible());
  await inflateZlib(Buffer.concat([data, Buffer.alloc(500, 7)]), back.fill(0));
  assert.deepEqual(back, compressible());
  const corrupt = { code: 'ERR_COWHERD_CORRUPT' };
  for (const at of [0, data.length - 1]) {
    const damaged = Buffer.from(data);
    damaged[at] ^= 0x10;
    await assert.rejects(inflateZlib(damaged, back), corrupt, `byte ${at}`);
  }
  await assert.rejects(inflateZlib(data.subarray(0, -1), back), corrupt);
  await assert.rejects(inflateZlib(data, new Uint8Array(clusterBytes - 1)), corrupt);
  await assert.rejects(inflateZlib(data, new Uint8Array(clusterBytes + 1)), corrupt);
});

test('zstd: frames without a content size, made by another encoder of streams', async () => {
  // Three raw blocks of a frame whose header has neither content size nor checksum.
  const header = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
  const block = (bytes: number[], last: boolean): number[] => {
    const field = (bytes.length << 3) | (last ? 1 : 0);
    return [field & 0xff, (field >> 8) & 0xff, field >> 16, ...bytes];
  };
  const frame = Uint8Array.from([
    ...header,
    ...block([1, 2, 3], false),
    ...block([4], false),
    ...block([5, 6], true),
  ]);
  const back = new Uint8Array(6);
  await codecFor('zstd').decompress(Buffer.concat([frame, Buffer.alloc(100)]), back);
  assert.deepEqual([...back], [1, 2, 3, 4, 5, 6]);
});

test('zstd: other decoders read what we write', { skip: !hasZstd }, async () => {
  const output = new Uint8Array(clusterBytes);
  const length = await codecFor('zstd').compress(compressible(), output);
  assert.deepEqual(new Uint8Array(fzstdDecompress(output.slice(0, length))), compressible());
});
