/** Requests that come one at a time leave the clusters of a file where those of qemu-io do. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type IoTwins, bothRun, ioTwins } from '../../support/io-twins.js';
import { needsTool, runOk } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 12);
const diskBytes = 12 << 20;

const layouts: Readonly<Record<string, string>> = {
  // A block counts 128 KiB, and the first table 8 MiB.
  'clusters of 512 bytes': 'cluster_size=512',
  'wide counts': 'cluster_size=1k,refcount_bits=64',
  'late counts': 'cluster_size=512,lazy_refcounts=on',
  'clusters of 64 KiB': 'cluster_size=64k',
  subclusters: 'extended_l2=on,cluster_size=16k',
};

const write = fc
  .tuple(fc.nat(diskBytes), fc.oneof(fc.nat(3000), fc.nat(100_000), fc.nat(3_000_000)))
  .map(([at, length]) => `write ${at} ${Math.min(length, diskBytes - at)}`);
const sessions = fc.array(fc.array(write, { minLength: 1, maxLength: 6 }), {
  minLength: 1,
  maxLength: 3,
});

/** Where each stretch of the disk lies, and where the file ends. */
async function layoutOf(folder: string): Promise<unknown> {
  const place = path.join(folder, 'disk');
  const map = await runOk('qemu-img', ['map', '-f', 'qcow2', '--output=json', place]);
  const check = await runOk('qemu-img', ['check', '-f', 'qcow2', '--output=json', place]);
  const { 'image-end-offset': end } = JSON.parse(check) as Record<string, unknown>;
  const extents = JSON.parse(map) as readonly { start: number; length: number; offset?: number }[];
  return { end, extents: extents.map(({ start, length, offset }) => [start, length, offset]) };
}

async function assertSameLayout({ mine, theirs }: IoTwins, what: string): Promise<void> {
  assert.deepEqual(await layoutOf(mine), await layoutOf(theirs), what);
}

for (const [name, options] of Object.entries(layouts)) {
  test(`clusters lie where qemu-io has them, ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const make = (folder: string): Promise<void> =>
      runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, 'disk', `${diskBytes}`], {
        cwd: folder,
      }).then(() => undefined);
    const whole = await ioTwins(t, make);
    await bothRun(whole, [`write 0 ${diskBytes}`], ['disk']);
    await assertSameLayout(whole, 'all in order');
    t.diagnostic(`seed ${seed}, ${runs} runs`);
    await fc.assert(
      fc.asyncProperty(sessions, async (drawn) => {
        const twins = await ioTwins(t, make);
        for (const lines of drawn) {
          await bothRun(twins, lines, ['disk']);
          await assertSameLayout(twins, JSON.stringify(drawn));
        }
      }),
      { seed, numRuns: runs },
    );
  });
}
