/**
 * Tables that contradict the format or each other, met by requests: one clear error, the image marked
 * where the real tool marks it, no metadata written over, and nothing that hangs.
 */
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Image } from '../../../../src/image/api/image.js';
import { openImageOn } from '../../../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../../../src/storage/memory/memory-file.js';
import { CorruptionBases, imageName } from '../../../support/corruption-bases.js';
import { type CorruptionBase, DamagedImage, plain } from '../../../support/damaged-image.js';
import { needsTool, run, temporaryFolder } from '../../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 60);
const clusterSize = 4096;
const copied = 1n << 63n;
const misaligned = copied | 0x50200n;

const isMarked = (bytes: Buffer): boolean => (bytes.readUInt32BE(76) & 2) !== 0;

function contentOf(bytes: Buffer): MemoryContent {
  const content = new MemoryContent();
  content.write(bytes, 0);
  return content;
}

function bytesOf(content: MemoryContent): Buffer {
  const bytes = Buffer.alloc(content.size);
  content.read(bytes, 0);
  return bytes;
}

function open(content: MemoryContent, overlapCheck?: 'cached' | 'all'): Promise<Image> {
  return openImageOn(new MemoryFile('image', { content }), { format: 'qcow2', overlapCheck });
}

const data = (length: number): Uint8Array => new Uint8Array(length).fill(0xee);

/** Damage, a request that meets it, and the same for qemu-io. */
interface Encounter {
  readonly name: string;
  readonly damage: (image: DamagedImage) => void;
  readonly request: (image: Image) => Promise<void>;
  readonly command: string;
  /** Where this engine differs on purpose. */
  readonly expected?: { readonly failed: boolean; readonly marked: boolean };
}

const read = (image: Image): Promise<void> => image.read(new Uint8Array(clusterSize), 0);
const write = (image: Image): Promise<void> => image.write(data(clusterSize), 0);
const allocate = (image: Image): Promise<void> => image.write(data(clusterSize), 64 * 1024);
const discard = (image: Image): Promise<void> => image.discard(0, clusterSize);
const setEntry = (entry: bigint) => (image: DamagedImage) => {
  image.change(image.entry(0), () => entry);
};
const setTable = (entry: bigint) => (image: DamagedImage) => {
  image.change(image.l1Offset, () => entry);
};
const allocation = { request: allocate, command: 'write 64k 4k' };

const encounters: readonly Encounter[] = [
  {
    name: 'misaligned data, read',
    damage: setEntry(misaligned),
    request: read,
    command: 'read 0 4k',
  },
  {
    name: 'misaligned data, written',
    damage: setEntry(misaligned),
    request: write,
    command: 'write 0 4k',
  },
  {
    name: 'misaligned data, discarded',
    damage: setEntry(misaligned),
    request: discard,
    command: 'discard 0 4k',
  },
  {
    name: 'a misaligned zero cluster, read',
    damage: setEntry(misaligned | 1n),
    request: read,
    command: 'read 0 4k',
  },
  {
    name: 'a misaligned zero cluster, written',
    damage: setEntry(misaligned | 1n),
    request: write,
    command: 'write 0 4k',
  },
  {
    name: 'misaligned data that are to be copied',
    damage: setEntry(misaligned & ~copied),
    request: write,
    command: 'write 0 4k',
    // The other tool says that the image is corrupt, and goes on.
    expected: { failed: true, marked: true },
  },
  {
    name: 'a misaligned L2 table, read',
    damage: setTable(misaligned),
    request: read,
    command: 'read 0 4k',
  },
  {
    name: 'a misaligned L2 table, written',
    damage: setTable(misaligned),
    request: write,
    command: 'write 0 4k',
  },
  {
    name: 'a misaligned L2 table, discarded',
    damage: setTable(misaligned),
    request: discard,
    command: 'discard 0 4k',
  },
  {
    name: 'a misaligned refcount block',
    damage: (image) => {
      image.change(image.refcountTableOffset, (entry) => entry | 0x200n);
    },
    ...allocation,
  },
  {
    name: 'an L2 table that is a refcount block',
    damage: (image) => {
      image.change(image.l1Offset, () => copied | BigInt(image.refcountBlock(0)));
    },
    request: async (image) => {
      await image.write(data(clusterSize), 32 * 1024);
      await image.flush();
    },
    command: 'write 32k 4k',
    // The other tool may notice when the write is over.
    expected: { failed: true, marked: true },
  },
  {
    name: 'a refcount block that is the L1 table',
    damage: (image) => {
      image.change(image.refcountTableOffset, () => BigInt(image.l1Offset));
    },
    ...allocation,
    expected: { failed: true, marked: true },
  },
  {
    name: 'an L1 table that is the refcount table',
    damage: (image) => {
      image.bytes.writeBigUInt64BE(BigInt(image.refcountTableOffset), 40);
    },
    ...allocation,
    expected: { failed: true, marked: true },
  },
  {
    name: 'a count of an L2 table that is missing',
    damage: (image) => {
      image.count(image.pointer(image.l1Offset) / clusterSize, 0);
    },
    ...allocation,
  },
];

test('damage that a request meets is reported, and marked as the real tool marks it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const whole = path.join(await new CorruptionBases(folder).folderOf(plain), imageName);
  for (const { name, damage, request, command, expected } of encounters) {
    await t.test(name, async () => {
      const file = path.join(folder, 'damaged.qcow2');
      await copyFile(whole, file);
      const damaged = new DamagedImage(file);
      damage(damaged);
      const content = contentOf(damaged.bytes);
      const image = await open(content);
      // The short ways are taken only by an image that has been written to.
      const error = await request(image).then(
        () => undefined,
        (reason: unknown) => reason as Error,
      );
      const outcome = { failed: error !== undefined, marked: isMarked(bytesOf(content)) };
      await image.close().catch(() => undefined);
      if (error !== undefined) assert.match(error.message, /^'image'[^\n]*$/);
      if (expected === undefined) {
        await writeFile(file, damaged.bytes);
        const { stdout } = await run('qemu-io', ['-c', command, file]);
        const real = { failed: stdout.includes('failed'), marked: isMarked(await readFile(file)) };
        assert.deepEqual(outcome, real);
      } else {
        assert.deepEqual(outcome, expected);
      }
    });
  }
});

test('an invalid entry met on the short way of a write stops nobody else', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.qcow2');
  await copyFile(path.join(await new CorruptionBases(folder).folderOf(plain), imageName), file);
  const damaged = new DamagedImage(file);
  setEntry(misaligned)(damaged);
  const image = await open(contentOf(damaged.bytes));
  await image.write(data(clusterSize), 2 * clusterSize);
  await assert.rejects(write(image), { code: 'ERR_COWHERD_CORRUPT' });
  const buffer = new Uint8Array(clusterSize);
  await image.read(buffer, 2 * clusterSize);
  assert.deepEqual(buffer, data(clusterSize));
  await assert.rejects(image.close(), { code: 'ERR_COWHERD_CORRUPT' });
});

test('an image marked corrupt is read, refused for writing, and repaired', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.qcow2');
  await copyFile(path.join(await new CorruptionBases(folder).folderOf(plain), imageName), file);
  const damaged = new DamagedImage(file);
  damaged.count(damaged.pointer(damaged.l1Offset) / clusterSize, 0);
  const content = contentOf(damaged.bytes);
  const image = await open(content);
  await assert.rejects(allocate(image), { code: 'ERR_COWHERD_CORRUPT' });
  await assert.rejects(image.close(), { code: 'ERR_COWHERD_CORRUPT' });
  await assert.rejects(open(content), /Image is corrupt; cannot be opened read\/write/);
  const shared = { content, readOnly: true };
  const reader = await openImageOn(new MemoryFile('image', shared), { readOnly: true });
  await read(reader);
  await reader.close();
  const repairer = await openImageOn(new MemoryFile('image', { content }), { forCheck: true });
  assert.ok((await repairer.check({ repair: 'all' })).corruptionsFixed > 0);
  await repairer.close();
  const again = await open(content);
  await allocate(again);
  await again.close();
  await writeFile(file, bytesOf(content));
  assert.equal((await run('qemu-img', ['check', file])).code, 0);
});

test('reading a damaged image that is open for reading marks nothing', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.qcow2');
  await copyFile(path.join(await new CorruptionBases(folder).folderOf(plain), imageName), file);
  const damaged = new DamagedImage(file);
  setEntry(misaligned)(damaged);
  const content = contentOf(damaged.bytes);
  const image = await openImageOn(new MemoryFile('image', { content, readOnly: true }), {
    readOnly: true,
  });
  await assert.rejects(read(image), { code: 'ERR_COWHERD_CORRUPT' });
  await read(image).catch(() => undefined);
  await image.close();
  assert.deepEqual(bytesOf(content), damaged.bytes);
});

test('a count that is too low fails one flush, and keeps no other cluster from being freed', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.qcow2');
  await copyFile(path.join(await new CorruptionBases(folder).folderOf(plain), imageName), file);
  const damaged = new DamagedImage(file);
  damaged.count(damaged.host(0), 0);
  const content = contentOf(damaged.bytes);
  const image = await open(content);
  await image.discard(0, clusterSize);
  await image.discard(3 * clusterSize, clusterSize);
  await assert.rejects(image.flush(), {
    code: 'ERR_COWHERD_CORRUPT',
    message: /^'image': reference count of the cluster at host offset \d+ cannot become -1$/,
  });
  await image.write(data(clusterSize), 0);
  await image.flush();
  await image.close();
  assert.ok(!isMarked(bytesOf(content)));
  await writeFile(file, bytesOf(content));
  assert.equal((await run('qemu-img', ['check', file])).code, 0);
});

/** Two snapshots, tables of both kinds, compressed clusters. */
const rich: CorruptionBase = {
  name: 'rich',
  steps: [
    ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', 'IMAGE', '8M'],
    'write -P 0x11 0 64k',
    'write -c -P 0x12 64k 4k',
    'write -P 0x13 4M 16k',
    ['snapshot', '-c', 'first', 'IMAGE'],
    'write -P 0x14 4k 32k',
    ['snapshot', '-c', 'second', 'IMAGE'],
    'write -P 0x15 0 8k',
    'write -P 0x16 6M 8k',
  ],
};

/** Clusters of every structure that has a fixed place, read without the engine. */
function fixedClusters(image: DamagedImage): Map<number, string> {
  const clusters = new Map<number, string>();
  const add = (offset: number, what: string): void => {
    if (offset !== 0) clusters.set(offset / clusterSize, what);
  };
  clusters.set(0, 'header');
  add(image.l1Offset, 'L1 table');
  add(image.refcountTableOffset, 'refcount table');
  add(image.snapshotTableOffset, 'snapshot table');
  add(image.refcountBlock(0), 'refcount block');
  const tables = [image.l1Offset];
  for (const index of [0, 1]) {
    const l1 = Number(image.value(image.snapshot(index)));
    add(l1, "snapshot's L1 table");
    tables.push(l1);
  }
  for (const table of tables) {
    for (let entry = 0; entry < 4; entry++) add(image.pointer(table + entry * 8), 'L2 table');
  }
  return clusters;
}

const guestRequest = fc.record({
  kind: fc.constantFrom('write', 'part', 'compressed', 'zero', 'unmap', 'discard', 'flush'),
  cluster: fc.nat({ max: 2047 }),
});

async function request(
  image: Image,
  { kind, cluster }: { readonly kind: string; readonly cluster: number },
): Promise<void> {
  const offset = cluster * clusterSize;
  if (kind === 'write') await image.write(data(clusterSize), offset);
  else if (kind === 'part') await image.write(data(100), offset + 7);
  else if (kind === 'compressed') await image.writeCompressed(data(clusterSize), offset);
  else if (kind === 'discard') await image.discard(offset, clusterSize);
  else if (kind === 'flush') await image.flush();
  else await image.writeZeroes(offset, clusterSize, { unmap: kind === 'unmap' });
}

test('whatever counts and entries say, no request writes guest data over metadata', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  t.diagnostic(`seed ${seed}`);
  const folder = await temporaryFolder(t);
  const whole = path.join(await new CorruptionBases(folder).folderOf(rich), imageName);
  const file = path.join(folder, 'damaged.qcow2');
  let marked = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(), { maxLength: 6 }),
      fc.array(fc.record({ cluster: fc.nat({ max: 15 }), target: fc.nat(), flags: fc.nat(3) }), {
        maxLength: 2,
      }),
      fc.array(guestRequest, { minLength: 1, maxLength: 30 }),
      async (uncounted, entries, requests) => {
        await copyFile(whole, file);
        const damaged = new DamagedImage(file);
        const metadata = fixedClusters(damaged);
        const places = [...metadata.keys()];
        for (const { cluster, target, flags } of entries) {
          const place = BigInt(places[target % places.length] * clusterSize);
          const bits = [0n, copied, copied | 1n, 1n << 62n][flags];
          damaged.change(damaged.entry(cluster * clusterSize), () => bits | place);
        }
        for (const index of uncounted) damaged.count(places[index % places.length], 0);
        const content = contentOf(damaged.bytes);
        const image = await open(content, 'all');
        for (const each of requests) await request(image, each).catch(() => undefined);
        await image.close().catch(() => undefined);
        const after = bytesOf(content);
        if (isMarked(after)) marked++;
        for (const [cluster, what] of metadata) {
          // The pattern of guest data appears in no table, not even in a compressed form.
          const bytes = after.subarray(cluster * clusterSize, (cluster + 1) * clusterSize);
          assert.ok(!bytes.includes(Buffer.alloc(16, 0xee)), `${what} at cluster ${cluster}`);
        }
        const magic = after.readUInt32BE(0);
        assert.equal(magic, 0x514649fb);
        for (const [cluster, what] of metadata) {
          if (!what.includes('snapshot')) continue;
          const start = cluster * clusterSize;
          const slice = (bytes: Buffer): Buffer => bytes.subarray(start, start + clusterSize);
          assert.ok(slice(after).equals(slice(damaged.bytes)), `${what} at cluster ${cluster}`);
        }
      },
    ),
    { seed, numRuns: runs },
  );
  t.diagnostic(`${marked} of ${runs} images were marked corrupt`);
});
