/**
 * A repair changes metadata only: whatever entries are damaged, what the guest could read is as it
 * was, backing file and all, and the mapping tables are what the real tool makes of them.
 */
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { createImage } from '../../../../src/image/graph/create.js';
import { openImage } from '../../../../src/image/graph/open.js';
import { runCowherd, runQemuImg } from '../../../support/both-tools.js';
import { DamagedImage, copied } from '../../../support/damaged-image.js';
import { needsTool, run, temporaryFolder } from '../../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 20);
const clusterSize = 16 * 1024;
const subclusterSize = clusterSize / 32;
const clusters = 12;
const size = clusters * clusterSize;

const write = fc.record({
  kind: fc.constantFrom('write' as const, 'zero' as const, 'compressed' as const),
  /** In subclusters. */
  at: fc.nat({ max: clusters * 32 - 1 }),
  length: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 200 })),
});

/** Entries that keep a place but no data, which is valid; then some of the places are damaged. */
const emptied = fc.record({
  cluster: fc.nat({ max: clusters - 1 }),
  zeroes: fc.boolean(),
  misaligned: fc.constantFrom(true, true, false),
});

const damage = fc.record({
  cluster: fc.nat({ max: clusters - 1 }),
  kind: fc.constantFrom(
    'misaligned' as const,
    'misaligned' as const,
    'not copied' as const,
    'copied' as const,
    'bitmap' as const,
    'zero flag' as const,
  ),
  bits: fc.tuple(fc.nat(0xffffffff), fc.nat(0xffffffff)),
});

const scenario = fc.record({
  extendedL2: fc.constantFrom(true, true, true, false),
  backing: fc.constantFrom('whole' as const, 'short' as const, 'none' as const),
  snapshot: fc.boolean(),
  writes: fc.array(write, { minLength: 1, maxLength: 12 }),
  emptied: fc.array(emptied, { minLength: 1, maxLength: 8 }),
  damages: fc.array(damage, { maxLength: 3 }),
});
type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never;

async function makeImage(folder: string, { extendedL2, backing, ...drawn }: Scenario) {
  const file = path.join(folder, 'disk.qcow2');
  const below = { backingFile: `${backing}.raw`, backingFormat: 'raw' } as const;
  const options = { format: 'qcow2', size, clusterSize, extendedL2 } as const;
  await createImage(file, { ...options, ...(backing !== 'none' && below) });
  const image = await openImage(file);
  for (const [index, { kind, at, length }] of drawn.writes.entries()) {
    const start = at * subclusterSize;
    const bytes = Math.min(length * subclusterSize, size - start);
    if (kind === 'zero') await image.writeZeroes(start, bytes);
    else if (kind === 'write') await image.write(new Uint8Array(bytes).fill(index + 1), start);
    else {
      const whole = Math.floor(start / clusterSize) * clusterSize;
      await image.writeCompressed(new Uint8Array(clusterSize).fill(index + 1), whole);
    }
  }
  await image.close();
  if (drawn.snapshot) await run('qemu-img', ['snapshot', '-c', 'one', file]);
  return file;
}

/** The entry of a cluster that has one, its table being there. */
function entryOf(image: DamagedImage, cluster: number): number | undefined {
  if (image.pointer(image.l1Offset) === 0) return undefined;
  return image.entry(cluster * clusterSize);
}

const hasHost = (entry: bigint): boolean =>
  (entry & (1n << 62n)) === 0n && (entry << 8n) >> 17n !== 0n;

/** Changes the tables in the file. */
async function change(file: string, work: (image: DamagedImage) => void): Promise<void> {
  const image = new DamagedImage(file);
  work(image);
  await writeFile(file, image.bytes);
}

function empty(image: DamagedImage, emptied: Scenario['emptied']): void {
  for (const { cluster, zeroes } of emptied) {
    const at = entryOf(image, cluster);
    if (at === undefined || !image.isExtended || !hasHost(image.value(at))) continue;
    image.bytes.writeUInt32BE(0, at + 12);
    if (!zeroes) image.bytes.writeUInt32BE(0, at + 8);
  }
}

function harm(image: DamagedImage, { emptied, damages }: Scenario): void {
  for (const { cluster, misaligned } of emptied) {
    const at = entryOf(image, cluster);
    if (at === undefined || !misaligned || !hasHost(image.value(at))) continue;
    image.change(at, (entry) => entry | 0x200n);
  }
  for (const { cluster, kind, bits } of damages) {
    const at = entryOf(image, cluster);
    if (at === undefined) continue;
    const entry = image.value(at);
    if (kind === 'bitmap' && image.isExtended) {
      image.bytes.writeUInt32BE(bits[0], at + 8);
      image.bytes.writeUInt32BE(bits[1], at + 12);
    }
    if (!hasHost(entry)) continue;
    if (kind === 'misaligned') image.bytes.writeBigUInt64BE(entry | 0x200n, at);
    else if (kind === 'not copied') image.bytes.writeBigUInt64BE(entry & ~copied, at);
    else if (kind === 'copied') image.bytes.writeBigUInt64BE(entry | copied, at);
    else if (kind === 'zero flag') image.bytes.writeBigUInt64BE(entry | 1n, at);
  }
}

/** What the guest reads, by subclusters; undefined where it cannot. */
async function guestContent(file: string): Promise<(string | undefined)[]> {
  const image = await openImage(file, { readOnly: true });
  const content: (string | undefined)[] = [];
  const read = async (start: number, length: number): Promise<void> => {
    const buffer = Buffer.alloc(length);
    const isRead = await image.read(buffer, start).then(
      () => true,
      () => false,
    );
    if (isRead || length === subclusterSize) {
      for (let at = 0; at < length; at += subclusterSize) {
        content.push(isRead ? buffer.toString('latin1', at, at + subclusterSize) : undefined);
      }
      return;
    }
    const part = length > clusterSize ? clusterSize : subclusterSize;
    for (let at = 0; at < length; at += part) await read(start + at, part);
  };
  await read(0, size);
  await image.close();
  return content;
}

/** The first L2 table, 16 bytes at a time. */
async function tableOf(file: string): Promise<readonly string[]> {
  const image = new DamagedImage(file);
  const table = image.pointer(image.l1Offset);
  if (table === 0) return [];
  const text = (await readFile(file)).toString('hex', table, table + clusterSize);
  return text.match(/.{32}/g) ?? [];
}

test('a repair changes nothing that the guest could read', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}`);
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'whole.raw'), Buffer.alloc(size, 0xff));
  await writeFile(path.join(folder, 'short.raw'), Buffer.alloc(size / 2 + 700, 0xee));
  const [ours, theirs] = ['ours.qcow2', 'theirs.qcow2'].map((name) => path.join(folder, name));
  const tally = { repaired: 0, kept: 0, dropped: 0 };
  await fc.assert(
    fc.asyncProperty(scenario, async (drawn) => {
      const file = await makeImage(folder, drawn);
      await change(file, (image) => {
        empty(image, drawn.emptied);
      });
      const whole = await guestContent(file);
      await change(file, (image) => {
        harm(image, drawn);
      });
      const damaged = await guestContent(file);
      const harmed = new Set(drawn.damages.map(({ cluster }) => cluster));
      await copyFile(file, ours);
      await copyFile(file, theirs);
      const words = (name: string): string[] => ['check', '-r', 'all', name];
      const expected = await runQemuImg(words(path.basename(theirs)), folder);
      const actual = await runCowherd(words(path.basename(ours)), folder);
      assert.equal(actual.code, expected.code, expected.stderr);
      assert.deepEqual(await tableOf(ours), await tableOf(theirs), 'mapping tables');
      const after = await guestContent(ours);
      for (let index = 0; index < damaged.length; index++) {
        if (damaged[index] !== undefined) assert.equal(after[index], damaged[index]);
        else if (after[index] === undefined) tally.kept++;
        else if (drawn.extendedL2 && !harmed.has(Math.floor(index / 32))) {
          // Without its impossible place the entry means what it meant before that was damaged.
          assert.equal(after[index], whole[index]);
          tally.dropped++;
        }
      }
      if (actual.code === 0) {
        const compared = await run('qemu-img', ['compare', ours, theirs]);
        assert.equal(compared.code, 0, compared.stdout + compared.stderr);
        assert.equal((await run('qemu-img', ['check', ours])).code, 0);
        tally.repaired++;
      }
    }),
    { seed, numRuns: runs },
  );
  t.diagnostic(JSON.stringify(tally));
  assert.ok(runs < 20 || (tally.repaired > 0 && tally.dropped > 0));
});
