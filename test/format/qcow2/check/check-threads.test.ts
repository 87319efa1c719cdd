/** A check by several threads finds what one alone does, in an image with many damaged tables. */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CheckFinding, CheckResult } from '../../../../src/image/api/reports.js';
import { createImage } from '../../../../src/image/graph/create.js';
import { openImage } from '../../../../src/image/graph/open.js';
import { needsTool, run, runOk, temporaryFolder } from '../../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 3);

/** Enough for L2 tables of 16 MiB, from which on threads are started. */
const geometries = [
  { clusterSize: 65536, size: 128 * 2 ** 30, extendedL2: false },
  { clusterSize: 65536, size: 64 * 2 ** 30, extendedL2: true },
  { clusterSize: 1024, size: 2 * 2 ** 30, extendedL2: false },
];

/** A table entry, by places from 0 to 1, and what becomes of it. */
interface Damage {
  readonly table: number;
  readonly entry: number;
  readonly flip: bigint;
}

const place = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const damage: fc.Arbitrary<Damage> = fc.record({
  table: place,
  entry: place,
  flip: fc.oneof(
    // A flag, a reserved bit, an offset within a cluster, another cluster, one beyond the file.
    fc.constantFrom(1n << 63n, 1n << 62n, 1n << 57n, 1n, 512n, 1n << 16n, 1n << 20n, 1n << 50n),
    fc.bigInt(0n, (1n << 64n) - 1n),
  ),
});

async function check(
  file: string,
  queues: number,
): Promise<{ report: CheckResult; told: CheckFinding[] }> {
  await using image = await openImage(file, { format: 'qcow2', readOnly: true, forCheck: true });
  const told: CheckFinding[] = [];
  const onFinding = (finding: CheckFinding): void => void told.push(finding);
  const report = await image.check({ queues, onFinding });
  return { report, told };
}

const sorted = (findings: readonly CheckFinding[]): string[] =>
  findings.map(({ kind, message }) => `${kind} ${message}`).sort();

for (const geometry of geometries) {
  const { clusterSize, extendedL2 } = geometry;
  const name = `clusters of ${clusterSize} bytes${extendedL2 ? ' with subclusters' : ''}`;
  test(`damage is found alike by one thread and by three: ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    t.diagnostic(`COWHERD_TEST_SEED=${seed}`);
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'image.qcow2');
    await createImage(file, { format: 'qcow2', ...geometry, preallocation: 'metadata' });
    if (extendedL2) await runOk('qemu-img', ['snapshot', '-c', 'first', file]);
    await (async () => {
      await using image = await openImage(file, { format: 'qcow2' });
      const bytes = new Uint8Array(clusterSize);
      for (let index = 0; index < 300; index++) {
        const offset = Math.floor((geometry.size / clusterSize / 300) * index) * clusterSize;
        if (index % 3 === 0) await image.discard(offset, 5 * clusterSize);
        else await image.writeCompressed(bytes, offset);
      }
    })();
    const handle = await open(file, 'r+');
    try {
      const header = Buffer.alloc(48);
      await handle.read(header, 0, 48, 0);
      const l1 = Buffer.alloc(header.readUInt32BE(36) * 8);
      await handle.read(l1, 0, l1.length, Number(header.readBigUInt64BE(40)));
      await fc.assert(
        fc.asyncProperty(fc.array(damage, { maxLength: 12 }), async (damages) => {
          const undo: (() => Promise<unknown>)[] = [];
          for (const { table, entry, flip } of damages) {
            const pointer = l1.readBigUInt64BE(Math.floor(table * (l1.length / 8)) * 8);
            const tableOffset = Number(pointer & 0x00fffffffffffe00n);
            const at = tableOffset + Math.floor(entry * (clusterSize / 8)) * 8;
            const bytes = Buffer.alloc(8);
            await handle.read(bytes, 0, 8, at);
            const before = Buffer.from(bytes);
            bytes.writeBigUInt64BE(bytes.readBigUInt64BE() ^ flip);
            await handle.write(bytes, 0, 8, at);
            undo.push(() => handle.write(before, 0, 8, at));
          }
          const alone = await check(file, 1);
          const shared = await check(file, 3);
          for (const restore of undo.reverse()) await restore();
          assert.deepEqual(
            { ...shared.report, findings: sorted(shared.report.findings) },
            { ...alone.report, findings: sorted(alone.report.findings) },
          );
          assert.deepEqual(sorted(shared.told), sorted(alone.told));
        }),
        { seed, numRuns },
      );
    } finally {
      await handle.close();
    }
    const { report } = await check(file, 3);
    const real = JSON.parse(
      (await run('qemu-img', ['check', '--output=json', file])).stdout,
    ) as Record<string, number | undefined>;
    assert.equal(report.corruptions + report.leaks, 0);
    assert.equal(report.allocatedClusters, real['allocated-clusters']);
    assert.equal(report.fragmentedClusters, real['fragmented-clusters'] ?? 0);
    assert.equal(report.compressedClusters, real['compressed-clusters'] ?? 0);
    assert.equal(report.imageEndOffset, real['image-end-offset']);
  });
}

test('a check by several threads is cancelled, and leaves no thread behind', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'image.qcow2');
  const [geometry] = geometries;
  await createImage(file, { format: 'qcow2', ...geometry, preallocation: 'metadata' });
  await using image = await openImage(file, { format: 'qcow2', readOnly: true });
  const cancel = new AbortController();
  const onProgress = (): void => {
    cancel.abort();
  };
  await assert.rejects(image.check({ queues: 2, onProgress, signal: cancel.signal }));
  assert.equal(process.getActiveResourcesInfo().includes('MessagePort'), false);
});
