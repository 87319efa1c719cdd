/**
 * Writes that damaged tables send into metadata: refused, with the image marked corrupt, at every
 * level and for every structure that the real tool refuses them for.
 */
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { CowherdError } from '../../../../src/errors.js';
import {
  type HostOffset,
  after,
  asHostOffset,
} from '../../../../src/format/qcow2/layout/geometry.js';
import type { Image } from '../../../../src/image/api/image.js';
import type { OpenImageOptions } from '../../../../src/image/api/options.js';
import {
  OverlapCheck,
  allocateOverlapMemory,
} from '../../../../src/format/qcow2/overlap/overlap.js';
import {
  PointerTable,
  allocatePointerTable,
} from '../../../../src/format/qcow2/tables/pointer-table.js';
import { Structure, structuresOfLevel } from '../../../../src/format/qcow2/overlap/levels.js';
import { formatFile } from '../../../../src/image/graph/create.js';
import { openImageOn } from '../../../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../../../src/storage/memory/memory-file.js';
import { bytesOf, contentOf, openOver } from '../../../crash/open-over.js';
import { withRealSnapshot } from '../../../crash/real-tools.js';
import { CorruptionBases, imageName } from '../../../support/corruption-bases.js';
import { type CorruptionBase, DamagedImage } from '../../../support/corruptions.js';
import { needsTool, run, temporaryFolder } from '../../../support/tools.js';

type Level = NonNullable<OpenImageOptions['overlapCheck']>;

const clusterSize = 4096;
const copied = 1n << 63n;
const levels: readonly Level[] = ['none', 'constant', 'cached', 'all'];

/** Every structure: two L2 tables of a snapshot, one of which the active tables have replaced. */
const base: CorruptionBase = {
  name: 'structures',
  steps: [
    ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', 'IMAGE', '4M'],
    'write -P 0x11 0 32k',
    'write -P 0x22 2M 8k',
    ['snapshot', '-c', 'first', 'IMAGE'],
    'write -P 0x33 0 32k',
    ['bitmap', '--add', 'IMAGE', 'history'],
  ],
};

/** Where each structure lies, and from which level on it is looked at. */
const structures: readonly {
  readonly name: string;
  readonly level: Level;
  readonly place: (image: DamagedImage) => number;
}[] = [
  { name: 'the header', level: 'constant', place: () => 0 },
  { name: 'the active L1 table', level: 'constant', place: (image) => image.l1Offset },
  { name: 'the refcount table', level: 'constant', place: (image) => image.refcountTableOffset },
  { name: 'the snapshot table', level: 'constant', place: (image) => image.snapshotTableOffset },
  { name: 'the bitmap directory', level: 'constant', place: (image) => image.bitmapDirectory },
  { name: 'an active L2 table', level: 'cached', place: (image) => image.pointer(image.l1Offset) },
  { name: 'a refcount block', level: 'cached', place: (image) => image.refcountBlock(0) },
  { name: "a snapshot's L1 table", level: 'cached', place: snapshotL1 },
  {
    name: "a snapshot's L2 table",
    level: 'all',
    place: (image) => image.pointer(snapshotL1(image)),
  },
];

function snapshotL1(image: DamagedImage): number {
  return Number(image.value(image.snapshot(0)));
}

/** The guest cluster whose entry is damaged; its table is the active image's own. */
const victim = 4 * clusterSize;
/** A guest cluster of that table that nothing was written to. */
const unwritten = 64 * clusterSize;

/** How a write, or whatever else a guest may ask for, comes to hit a structure. */
interface Attack {
  readonly name: string;
  readonly damage: (image: DamagedImage, place: number) => void;
  readonly attack: (image: Image) => Promise<void>;
  /** The same for qemu-io, where it looks too: freeing metadata is nothing that it notices. */
  readonly command?: string;
  readonly pointsAtHeader?: boolean;
}

const data = (length: number): Uint8Array => new Uint8Array(length).fill(0xee);
const pointAt = (flags: bigint) => (image: DamagedImage, place: number) => {
  image.change(image.entry(victim), () => flags | BigInt(place));
};

const countedAsFree: Attack['damage'] = (image, place) => {
  image.count(place / clusterSize, 0);
};

const attacks: readonly Attack[] = [
  {
    name: 'a write in place',
    damage: pointAt(copied),
    attack: (image) => image.write(data(clusterSize), victim),
    command: `write -P 0xee ${victim} ${clusterSize}`,
  },
  {
    name: 'a write in place, a part of many clusters',
    damage: pointAt(copied),
    attack: (image) => image.write(data(6 * clusterSize), 100),
    command: `write -P 0xee 100 ${6 * clusterSize}`,
  },
  {
    name: 'a write into a zero cluster that keeps its place',
    damage: pointAt(copied | 1n),
    attack: (image) => image.write(data(100), victim + 5),
    command: `write -P 0xee ${victim + 5} 100`,
  },
  {
    name: 'an allocation',
    damage: countedAsFree,
    attack: (image) => image.write(data(clusterSize), unwritten),
    command: `write -P 0xee ${unwritten} ${clusterSize}`,
  },
  {
    name: 'an allocation for compressed data',
    damage: countedAsFree,
    attack: (image) => image.writeCompressed(data(clusterSize), unwritten),
    command: `write -c -P 0xee ${unwritten} ${clusterSize}`,
  },
  {
    name: 'a copy on write, which frees',
    damage: pointAt(0n),
    attack: (image) => image.write(data(clusterSize), victim),
  },
  {
    name: 'a discard',
    damage: pointAt(copied),
    attack: (image) => image.discard(victim, clusterSize),
  },
  {
    name: 'a discard of a zero cluster',
    damage: pointAt(copied | 1n),
    attack: (image) => image.discard(victim - clusterSize, 3 * clusterSize),
  },
  {
    name: 'zeroing with unmap',
    damage: pointAt(copied),
    attack: (image) => image.writeZeroes(victim, clusterSize, { unmap: true }),
  },
  {
    name: 'zeroing of a part',
    damage: pointAt(copied),
    attack: (image) => image.writeZeroes(victim + 512, 512),
    command: `write -z ${victim + 512} 512`,
  },
  {
    name: 'a compressed write, which frees',
    damage: pointAt(copied),
    attack: (image) => image.writeCompressed(data(clusterSize), victim),
  },
  {
    name: 'giving up compressed data',
    damage: pointAt(1n << 62n),
    pointsAtHeader: true,
    attack: (image) => image.write(data(clusterSize), victim),
  },
];

const isMarked = (bytes: Buffer): boolean => (bytes.readUInt32BE(76) & 2) !== 0;

/** What became of an attack. */
interface Outcome {
  readonly failed: boolean;
  readonly marked: boolean;
}

async function ours(
  bytes: Buffer,
  attack: Attack['attack'],
  level: Level | undefined,
): Promise<Outcome & { readonly after: Buffer; readonly error: unknown }> {
  const content = new MemoryContent();
  content.write(bytes, 0);
  const image = await openImageOn(new MemoryFile('image', { content }), {
    format: 'qcow2',
    overlapCheck: level,
  });
  let error: unknown;
  await attack(image).catch((reason: unknown) => (error = reason));
  if (error !== undefined) await assertRefusing(image);
  // Where metadata have been written over, closing may fail for any reason.
  await image.close().catch(() => undefined);
  const after = Buffer.alloc(content.size);
  content.read(after, 0);
  return { failed: error !== undefined, marked: isMarked(after), after, error };
}

/** An image that is marked takes no more writes, and is still read. */
async function assertRefusing(image: Image): Promise<void> {
  const refused = { code: 'ERR_COWHERD_CORRUPT', message: /'image'.*corrupt.*no longer/ };
  await assert.rejects(image.write(data(512), 0), refused);
  await assert.rejects(image.discard(0, clusterSize), refused);
  await assert.rejects(image.flush(), refused);
  await image.read(new Uint8Array(clusterSize), 2 * 1024 * 1024);
  const { formatSpecific } = await image.info();
  assert.ok(formatSpecific?.type === 'qcow2' && formatSpecific.corrupt === true);
}

async function theirs(bytes: Buffer, command: string, level: Level, folder: string) {
  const file = path.join(folder, 'theirs.qcow2');
  await writeFile(file, bytes);
  const { stdout } = await run('qemu-io', [
    '-c',
    `open -o overlap-check=${level} ${file}`,
    '-c',
    command,
  ]);
  return { failed: stdout.includes('failed'), marked: isMarked(await readFile(file)) };
}

async function damagedBy(t: TestContext, damage: (image: DamagedImage) => void): Promise<Buffer> {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.qcow2');
  await copyFile(path.join(await new CorruptionBases(folder).folderOf(base), imageName), file);
  const image = new DamagedImage(file);
  damage(image);
  return Buffer.from(image.bytes);
}

for (const attack of attacks) {
  test(`${attack.name} does not hit metadata`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const folder = await temporaryFolder(t);
    const whole = await damagedBy(t, () => undefined);
    const damaged = path.join(folder, 'damaged.qcow2');
    for (const structure of structures) {
      await writeFile(damaged, whole);
      const image = new DamagedImage(damaged);
      const place = structure.place(image);
      attack.damage(image, place);
      const bytes = Buffer.from(image.bytes);
      // An entry without an offset points at nothing.
      if (place === 0 && attack.damage !== countedAsFree && attack.pointsAtHeader !== true)
        continue;
      for (const level of levels) {
        const what = `${structure.name} at ${level}`;
        const isLooked = levels.indexOf(level) >= levels.indexOf(structure.level);
        const outcome = await ours(bytes, attack.attack, level);
        // An allocation that gets the header's cluster is recognised without looking; the real tool
        // then writes over the header.
        const isFirst = place === 0 && attack.damage === countedAsFree;
        const expected = isLooked || isFirst;
        assert.deepEqual(
          { failed: outcome.failed, marked: outcome.marked },
          { failed: expected, marked: expected },
          `${what}: ${String(outcome.error)}`,
        );
        const isBoundary = Math.abs(levels.indexOf(level) - levels.indexOf(structure.level)) < 2;
        if (attack.command !== undefined && isBoundary && !(isFirst && !isLooked)) {
          const real = await theirs(bytes, attack.command, level, folder);
          assert.equal(outcome.failed, real.failed, `${what}: the real tool fails`);
          assert.equal(outcome.marked, real.marked, `${what}: the real tool marks`);
        }
        if (!expected) continue;
        assert.ok(CowherdError[Symbol.hasInstance](outcome.error));
        assert.equal((outcome.error as CowherdError).code, 'ERR_COWHERD_CORRUPT');
        assert.match((outcome.error as Error).message, /^'image': [^\n]*$/);
        if (isLooked) assert.ok((outcome.error as Error).message.includes(structure.name), what);
        assertUntouched(
          bytes,
          outcome.after,
          place,
          what,
          structure.name === 'the bitmap directory',
        );
      }
    }
  });
}

/** A structure's cluster is as it was; but for feature bits of the header, and the mark that a bitmap is in use. */
function assertUntouched(
  before: Buffer,
  after: Buffer,
  place: number,
  what: string,
  isDirectory: boolean,
): void {
  const cluster = (bytes: Buffer): Buffer => {
    // The file may end within it.
    const copy = Buffer.alloc(clusterSize);
    bytes.copy(copy, 0, place, place + clusterSize);
    if (place === 0) copy.fill(0, 72, 96);
    if (isDirectory) copy[15] &= ~1;
    return copy;
  };
  assert.ok(cluster(after).equals(cluster(before)), `${what} was written over`);
}

/** Where a cluster begins. */
function at(cluster: number): HostOffset {
  return asHostOffset(cluster * clusterSize);
}

/** A look-up beside tables of its own. */
function lookUp(structures: number, clusters: number) {
  const l1 = new PointerTable(allocatePointerTable(64));
  const refcountTable = new PointerTable(allocatePointerTable(64));
  l1.place(at(1), 64);
  refcountTable.place(at(2), 64);
  const memory = allocateOverlapMemory(structures, clusters);
  const check = new OverlapCheck(memory, 'image', clusterSize, { l1, refcountTable });
  return { l1, refcountTable, check };
}

const cached = structuresOfLevel.cached;

test('a cluster is found by every offset that touches it, however far into the file', () => {
  const { check } = lookUp(cached, 100);
  const far = asHostOffset(2 ** 45);
  for (const place of [at(0), at(7), far]) {
    check.protect(place, 1, Structure.snapshotTable);
    assert.ok(check.mayHit(place, 1));
    assert.ok(check.mayHit(after(place, clusterSize - 1), 1));
    assert.ok(!check.mayHit(after(place, clusterSize), clusterSize));
    assert.equal(check.find(after(place, 5), 1)?.structures, Structure.snapshotTable);
  }
  assert.ok(check.mayHit(after(far, -1), 2));
  // The same in its lower 32 bits.
  assert.ok(!check.mayHit(after(far, clusterSize * 2 ** 32), 1));
  assert.ok(!check.hasConflicts);
});

test('structures that are not looked at are not found', () => {
  const { check } = lookUp(structuresOfLevel.constant, 10);
  check.protect(at(0), 1, Structure.header);
  check.protect(at(1), 1, Structure.activeL2);
  assert.ok(check.mayHit(at(0), 1));
  assert.ok(!check.mayHit(at(1), 1));
});

test('a table that has moved away is not found, one that two structures share is a conflict', () => {
  const { check, l1 } = lookUp(cached, 10);
  const place = at(9);
  l1.set(3, place, true);
  check.protect(place, clusterSize, Structure.activeL2);
  assert.equal(check.find(place, 1)?.structures, Structure.activeL2);
  assert.equal(check.find(place, 1, Structure.activeL2), undefined);
  assert.throws(() => {
    check.check(place, clusterSize, 'a write');
  }, /'image': a write would hit an active L2 table at host offset 36864/);
  assert.ok(!check.hasConflicts);
  check.protect(place, clusterSize, Structure.refcountBlock);
  assert.ok(check.hasConflicts);
  l1.set(3, at(10), true);
  assert.equal(check.find(place, 1), undefined, 'neither table points there');
});

test('a cluster that a table has left is no conflict when another one takes it', () => {
  const { check, l1 } = lookUp(cached, 10);
  const place = at(9);
  check.protect(place, clusterSize, Structure.refcountTable);
  check.protect(place, clusterSize, Structure.activeL2);
  assert.ok(!check.hasConflicts);
  l1.set(3, place, true);
  assert.equal(check.find(place, 1)?.structures, Structure.activeL2);
  l1.set(3, at(10), true);
  check.protect(place, clusterSize, Structure.refcountBlock);
  assert.ok(!check.hasConflicts);
});

test('there is room for the places of L2 tables that are copied since a snapshot holds them', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  // A few less than half of the entries that there is memory for.
  const tables = 440;
  const tableReach = 512 * 64;
  const empty = new MemoryContent();
  const size = tables * tableReach;
  await formatFile(new MemoryFile('image', { content: empty }), {
    format: 'qcow2',
    size,
    clusterSize: 512,
    refcountBits: 2,
  });
  /** Changes a cluster of each table. @returns whether the look-up had room */
  const touchAll = async (content: MemoryContent): Promise<boolean> => {
    const file = new MemoryFile('image', { content });
    let overlap: OverlapCheck | undefined;
    const image = await openOver(
      { file, dataFile: undefined, backing: undefined, overlapCheck: 'cached' },
      ({ metadata }) => {
        overlap = metadata.overlap;
      },
    );
    for (let table = 0; table < tables; table++) {
      await image.write(new Uint8Array(512).fill(1), table * tableReach);
    }
    const hasRoom = !overlap!.mayHit(asHostOffset(2 ** 40), 1) && !overlap!.hasConflicts;
    await image.close();
    return hasRoom;
  };
  assert.ok(await touchAll(empty));
  const held = contentOf(await withRealSnapshot(bytesOf(empty), undefined));
  assert.ok(await touchAll(held), 'the look-up has no room left');
});

test('where there are more metadata than was thought, the tables themselves are searched', () => {
  const { check, l1 } = lookUp(cached, 32);
  for (let cluster = 100; cluster < 200; cluster++) {
    check.protect(at(cluster), clusterSize, Structure.activeL2);
  }
  l1.set(0, at(199), true);
  assert.equal(check.find(at(199), 1)?.structures, Structure.activeL2);
  assert.equal(check.find(at(50), clusterSize), undefined);
  assert.ok(check.mayHit(at(50), 1), 'which takes longer');
});
