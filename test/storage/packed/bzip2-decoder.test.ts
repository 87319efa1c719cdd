/** Unpacking bzip2, held against what the real tool packed, and against data that no tool packs. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { unpackBzip2 } from '../../../src/storage/packed/bzip2.js';
import { needsTool } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 40);

const packed = (bytes: Uint8Array, level = 9): Buffer =>
  spawnSync('bzip2', ['-c', `-${level}`], { input: bytes, maxBuffer: 2 ** 28 }).stdout;

/** What is unpacked from bytes that come in pieces of a length. */
async function unpacked(bytes: Uint8Array, pieceBytes = bytes.length): Promise<Buffer> {
  // eslint-disable-next-line @typescript-eslint/require-await -- the decoder takes what comes over time
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      yield bytes.subarray(at, at + pieceBytes);
    }
  }
  const all: Uint8Array[] = [];
  for await (const piece of unpackBzip2(pieces())) all.push(piece);
  return Buffer.concat(all);
}

/** Stretches of noise, of one byte, and of a text, of lengths around what runs and groups hold. */
const content = fc
  .array(
    fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 600 }),
      fc
        .tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 1, max: 2000 }))
        .map(([byte, length]) => new Uint8Array(length).fill(byte)),
      fc.integer({ min: 1, max: 500 }).map((times) => Buffer.from('cowherd '.repeat(times))),
    ),
    { maxLength: 20 },
  )
  .map((parts) => Buffer.concat(parts));

test('what bzip2 packed is unpacked, however it comes', async (t) => {
  if (!needsTool(t, 'bzip2')) return;
  t.diagnostic(`seed ${seed}, ${numRuns} runs`);
  await fc.assert(
    fc.asyncProperty(
      content,
      content,
      fc.integer({ min: 1, max: 9 }),
      fc.integer({ min: 1, max: 3000 }),
      async (one, other, level, pieceBytes) => {
        const streams = Buffer.concat([packed(one, level), packed(other)]);
        const expected = Buffer.concat([one, other]);
        assert.ok((await unpacked(streams, pieceBytes)).equals(expected));
      },
    ),
    { seed, numRuns },
  );
});

test('blocks that are full, of noise and of one byte', async (t) => {
  if (!needsTool(t, 'bzip2')) return;
  const noise = Buffer.alloc(2_500_000);
  for (let at = 0, state = 1; at < noise.length; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) | 0;
    noise[at] = state >>> 16;
  }
  for (const bytes of [noise, Buffer.alloc(60_000_000, 7)]) {
    for (const level of [1, 9]) {
      assert.ok((await unpacked(packed(bytes, level), 100_003)).equals(bytes));
    }
  }
});

test('every bit that is turned, and every cut, is told or changes nothing', async (t) => {
  if (!needsTool(t, 'bzip2')) return;
  const bytes = Buffer.concat([Buffer.from('cowherd '.repeat(40)), Buffer.alloc(900, 3)]);
  const whole = packed(bytes);
  for (let bit = 0; bit < whole.length * 8; bit += 1) {
    const turned = Buffer.from(whole);
    turned[bit >> 3] ^= 1 << (bit & 7);
    // A level that is higher, an unused code and the bits of the last byte mean nothing.
    const outcome = await unpacked(turned).catch((error: unknown) => (error as Error).message);
    if (typeof outcome === 'string') assert.equal(outcome, 'it is cut off or damaged');
    else assert.ok(outcome.equals(bytes), `bit ${bit}`);
  }
  for (let length = 1; length < whole.length; length += 1) {
    await assert.rejects(unpacked(whole.subarray(0, length)), {
      message: 'it is cut off or damaged',
    });
  }
});

/** Bits, from numbers and how many bits each has. */
function bits(...numbers: readonly (readonly [value: number, count: number])[]): Buffer {
  const text = numbers.map(([value, count]) => value.toString(2).padStart(count, '0')).join('');
  const padded = text.padEnd(Math.ceil(text.length / 8) * 8, '0');
  return Buffer.from(padded.match(/.{8}/g)!.map((byte) => parseInt(byte, 2)));
}

/** A block of which all is in order but for its symbols, each of two bits: 0 and 1 are digits of a run. */
const blockOf = (symbols: readonly number[]): Buffer =>
  bits(
    ...([
      [0x425a, 16],
      [0x6839, 16],
    ] as const),
    ...([
      [0x314159, 24],
      [0x265359, 24],
    ] as const),
    ...([
      [0, 32],
      [0, 1],
      [0, 24],
    ] as const),
    // Two bytes occur.
    ...([
      [0x8000, 16],
      [0xc000, 16],
    ] as const),
    // Two codes, and one group of symbols by the first of them.
    ...([
      [2, 3],
      [1, 15],
      [0, 1],
    ] as const),
    // All four symbols have two bits, in both.
    ...Array.from(
      { length: 2 },
      () =>
        [
          [2, 5],
          [0, 4],
        ] as const,
    ).flat(),
    ...symbols.map((symbol) => [symbol, 2] as const),
  );

test('runs that no block holds end at once', async () => {
  // Digits that count to 2^31 - 1 - 2^31 in numbers of 32 bits, and on.
  for (const digits of [20, 31, 32, 33, 40, 49]) {
    for (const digit of [0, 1]) {
      const symbols = [...Array<number>(digits).fill(digit), 3];
      const block = blockOf(symbols);
      await assert.rejects(unpacked(block), { message: 'it is cut off or damaged' });
    }
  }
});
