/** Random sequences of commands on twins: said and done are the same, whatever came before. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertAlike, bothRun, ioTwins } from '../../support/io-twins.js';
import { needsTool, runOk } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);

const images: Readonly<Record<string, readonly string[]>> = {
  plain: ['-f', 'qcow2'],
  'small clusters': ['-f', 'qcow2', '-o', 'cluster_size=4k'],
  subclusters: ['-f', 'qcow2', '-o', 'extended_l2=on'],
  'version 2': ['-f', 'qcow2', '-o', 'compat=0.10'],
  overlay: ['-f', 'qcow2', '-b', 'below', '-F', 'raw'],
  raw: ['-f', 'raw'],
};

const diskBytes = 1 << 20;
const offset = fc.oneof(
  fc.nat(diskBytes),
  fc.nat(16).map((index) => index * 65_536),
  fc.nat(256).map((index) => index * 4096),
);
const length = fc.oneof(fc.nat(3000), fc.constantFrom(512, 4096, 65_536, 131_072, 300_000));
const byte = fc.nat(255);

const place = fc.tuple(offset, length).map(([at, bytes]) => `${at} ${bytes}`);
const clusters = fc
  .tuple(fc.nat(15), fc.integer({ min: 1, max: 4 }))
  .map(([first, count]) => `${first * 65_536} ${count * 65_536}`);
const line = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(byte, place).map(([p, at]) => `write -P ${p} ${at}`) },
  { weight: 2, arbitrary: fc.tuple(byte, place).map(([p, at]) => `read -P ${p} ${at}`) },
  place.map((at) => `read -v ${at.replace(/\d+$/, '40')}`),
  fc.tuple(byte, place, length).map(([p, at, more]) => `writev -P ${p} ${at} ${more}`),
  fc.tuple(place, length).map(([at, more]) => `readv ${at} ${more}`),
  { weight: 2, arbitrary: place.map((at) => `write -z ${at}`) },
  place.map((at) => `write -zu ${at}`),
  { weight: 2, arbitrary: clusters.map((at) => `write -z ${at}`) },
  clusters.map((at) => `discard ${at}`),
  place.map((at) => `aio_write -P 3 ${at}`),
  place.map((at) => `alloc ${at}`),
  fc.constantFrom('map', 'length', 'flush', 'aio_flush', 'reopen -r', 'reopen -w', 'reopen'),
);

/** What runs on is waited for at once, since nobody says which of two ends first. */
function settled(lines: readonly string[]): readonly string[] {
  return lines.flatMap((each) => (each.startsWith('aio_write') ? [each, 'aio_flush'] : [each]));
}

test(`random sequences of commands (COWHERD_TEST_SEED=${seed})`, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const twins = await ioTwins(t, (folder) =>
    runOk('qemu-img', ['create', '-q', '-f', 'raw', 'below', `${diskBytes / 2}`], {
      cwd: folder,
    }).then(() => undefined),
  );
  for (const each of [twins.mine, twins.theirs]) {
    await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 77 100k 200k', 'below'], { cwd: each });
  }
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.keys(images)),
      fc.array(line, { minLength: 1, maxLength: 25 }),
      async (kind, lines) => {
        const words = images[kind];
        const format = words[1];
        for (const each of [twins.mine, twins.theirs]) {
          await rm(path.join(each, 'disk'), { force: true });
          await runOk('qemu-img', ['create', '-q', ...words, 'disk', `${diskBytes}`], {
            cwd: each,
          });
        }
        const { code } = await bothRun(twins, settled(lines), ['-f', format, 'disk']);
        assert.ok(code === 0 || code === 1);
        await assertAlike(twins, 'disk', format, kind);
      },
    ),
    { seed, numRuns: runs },
  );
});
