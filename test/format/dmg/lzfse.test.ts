/** LZFSE, held against an encoder of its own, and the real 7-Zip where it is installed. */
import assert from 'node:assert/strict';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { unpackLzfse } from '../../../src/format/dmg/lzfse.js';
import { Random } from '../../stress/random.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { pattern } from '../vmdk/builders.js';
import { assertReads } from '../vmdk/referee.js';
import { dmg } from './builders.js';
import { type LzfseKind, lzfse } from './lzfse-encoder.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 40);
const every: readonly LzfseKind[] = ['plain', 'lzvn', 'packed', 'wide'];

/** Noise, runs, and texts that come again. */
const content = fc
  .array(
    fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 700, size: 'max' }),
      fc
        .tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 1, max: 3000 }))
        .map(([byte, length]) => new Uint8Array(length).fill(byte)),
      fc.integer({ min: 1, max: 200 }).map((times) => Buffer.from('cowherd, '.repeat(times))),
    ),
    { minLength: 1, maxLength: 12 },
  )
  .map((parts) => Buffer.concat(parts));

test('what was packed is unpacked, in every way to pack', (t) => {
  t.diagnostic(`seed ${seed}, ${numRuns} runs`);
  fc.assert(
    fc.property(
      content,
      fc.subarray([...every], { minLength: 1 }),
      fc.integer(),
      fc.integer({ min: 500, max: 20_000 }),
      (bytes, kinds, drawn, blockBytes) => {
        const into = Buffer.alloc(bytes.length, 0xee);
        unpackLzfse(lzfse(bytes, kinds, new Random(drawn), blockBytes), into);
        assert.ok(into.equals(bytes));
      },
    ),
    { seed, numRuns },
  );
});

test('bytes that are changed or cut off end in an error or in bytes, at once', (t) => {
  t.diagnostic(`seed ${seed}`);
  const random = new Random(seed);
  const bytes = Buffer.concat([Buffer.from('cowherd, '.repeat(50)), pattern(1, 2000)]);
  let refused = 0;
  for (const kind of every) {
    const packed = lzfse(bytes, [kind], random, 1500);
    for (let run = 0; run < numRuns * 25; run++) {
      const damaged = Buffer.from(packed.subarray(0, packed.length - random.below(2) * 10));
      for (let count = random.below(3); count >= 0; count--) {
        damaged[random.below(damaged.length)] = random.below(256);
      }
      try {
        unpackLzfse(damaged, Buffer.alloc(bytes.length));
      } catch (error) {
        assert.equal((error as Error).constructor.name, 'LzfseError', String(error));
        refused++;
      }
    }
    for (let length = 0; length < packed.length; length++) {
      assert.throws(() => {
        unpackLzfse(packed.subarray(0, length), Buffer.alloc(bytes.length));
      });
    }
    for (const length of [bytes.length - 1, bytes.length + 1]) {
      assert.throws(() => {
        unpackLzfse(packed, Buffer.alloc(length));
      });
    }
  }
  assert.ok(refused > 0);
});

// 7-Zip reads no plain block to its end, and blocks with a wide header not at all.
for (const kind of ['lzvn', 'packed'] as const) {
  test(`an image of chunks that are ${kind}, as the real 7-Zip reads it`, async (t) => {
    if (!needsTool(t, '7zz')) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.dmg');
    const random = new Random(seed);
    const parts = [pattern(1, 200 * 512), Buffer.alloc(100 * 512, 9), pattern(3, 512)];
    const chunks = parts.map((part) => ({
      type: 0x80000007,
      sectors: part.length / 512,
      stored: lzfse(part, [kind], random),
    }));
    await writeFile(file, dmg({ tables: [chunks], in: 'property list' }));
    const whole = Buffer.concat(parts);
    await assertReads(t, file, whole, { format: 'dmg', map: 'promises' });
    await runOk('7zz', ['x', '-oout', 'disk.dmg'], { cwd: folder });
    const [name] = await readdir(path.join(folder, 'out'));
    assert.ok((await readFile(path.join(folder, 'out', name))).equals(whole));
  });
}
