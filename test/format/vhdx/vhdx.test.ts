/** VHDX images of QEMU's making read as QEMU reads them; others, made by hand, as they were made. */
import assert from 'node:assert/strict';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { VhdxMapping } from '../../../src/format/vhdx/mapping.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';
import {
  assertReads,
  assertReadsAsQemu,
  contentByQemu,
  extentsOf,
  memoryFile,
  numbers64,
  openReadOnly,
  pattern,
  placeOf,
  writeByQemu,
} from './referee.js';
import { type BuiltImage, contentOf, headerOf, vhdxImage } from './vhdx-builder.js';

const mib = 1024 * 1024;
const kib = 1024;

async function make(t: TestContext, options: string, size: string): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  await runOk('qemu-img', ['create', '-q', '-f', 'vhdx', '-o', options, file, size]);
  return file;
}

for (const options of [
  'subformat=dynamic,block_size=1M',
  'subformat=dynamic,block_size=2M,block_state_zero=off,log_size=2M',
  'subformat=dynamic',
  'subformat=fixed,block_size=1M',
  'subformat=fixed,block_size=4M,block_state_zero=off',
]) {
  test(options, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const file = await make(t, options, '9437696');
    await writeByQemu(file, 'vhdx', [
      'write -P 1 5M 200k',
      'write -P 2 0 2M',
      'write -P 3 2M 1M',
      'write -P 4 4095k 2k',
      'write -P 5 9437184 512',
    ]);
    await assertReadsAsQemu(t, file, 'vhdx');
    await using image = await openReadOnly(file, 'vhdx');
    assert.equal((await image.info()).dirtyFlag, false);
  });
}

test('a disk of no bytes', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = await make(t, 'subformat=dynamic', '0');
  await using image = await openReadOnly(file, 'vhdx');
  assert.equal(image.size, 0);
});

/** A dynamic image that has blocks in every state, and two that lie one after the other. */
const everyState: BuiltImage = {
  size: 12 * mib + 512,
  blockSize: mib,
  sectorSize: 512,
  blocks: [
    { index: 0, state: 6, data: pattern(1, mib) },
    { index: 1, state: 6, data: pattern(2, mib) },
    { index: 2, state: 1 },
    { index: 3, state: 2 },
    { index: 4, state: 3 },
    { index: 6, state: 5 },
    { index: 8, state: 6, data: pattern(3, mib) },
    { index: 7, state: 6, data: pattern(4, mib) },
    { index: 12, state: 6, data: pattern(5, 512) },
  ],
};

test('blocks in every state', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  await writeFile(file, vhdxImage(everyState));
  const content = await assertReadsAsQemu(t, file, 'vhdx');
  assert.ok(content.equals(contentOf(everyState)));
  await using image = await openReadOnly(file, 'vhdx');
  const found = (await extentsOf(image)).map(({ start, length, data, offset }) => [
    start! / mib,
    length! / mib,
    data === true ? offset! / mib : undefined,
  ]);
  assert.deepEqual(found, [
    [0, 2, 4],
    [2, 5, undefined],
    [7, 1, 7],
    [8, 1, 6],
    [9, 3, undefined],
    [12, 512 / mib, 8],
  ]);
});

test('sectors of 4096 bytes', async (t) => {
  const image = { ...everyState, size: 12 * mib + 4096, sectorSize: 4096 };
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  await writeFile(file, vhdxImage(image));
  await assertReads(t, file, 'vhdx', contentOf(image));
});

for (const sectorSize of [512, 4096]) {
  test(`blocks of two chunks, of sectors of ${sectorSize} bytes`, async (t) => {
    // The entry of a bitmap lies between those of the blocks, which lie one after the other.
    const blockSize = 8 * mib;
    const first = (2 ** 23 * sectorSize) / blockSize - 1;
    const data = [1, 2, 3].map((salt) => pattern(salt, blockSize));
    const image: BuiltImage = {
      size: (first + 4) * blockSize,
      blockSize,
      sectorSize,
      blocks: data.map((each, index) => ({ index: first + index, state: 6, data: each })),
    };
    const file = path.join(await temporaryFolder(t), 'disk.vhdx');
    await writeFile(file, vhdxImage(image));
    await using opened = await openReadOnly(file, 'vhdx');
    const found = (await extentsOf(opened)).map(({ start, length, data: isData }) => [
      start! / blockSize,
      length! / blockSize,
      isData,
    ]);
    assert.deepEqual(found, [
      [0, first, false],
      [first, 3, true],
      [first + 3, 1, false],
    ]);
    const across = Buffer.alloc(2 * mib);
    await opened.read(across, (first + 1) * blockSize - mib);
    assert.ok(across.subarray(0, mib).equals(data[0].subarray(blockSize - mib)));
    assert.ok(across.subarray(mib).equals(data[1].subarray(0, mib)));
    if (sectorSize !== 512 || !needsTool(t, 'qemu-img')) return;
    const { code, stderr } = await run('qemu-img', ['info', '-f', 'vhdx', file]);
    assert.equal(code, 0, stderr);
  });
}

test('one lookup finds blocks that follow one another, and no others', async () => {
  const at = (megabytes: number): number => megabytes * mib + 6;
  // The entry of a bitmap lies behind those of two blocks each.
  const entries = [at(4), at(5), 99, at(6), at(6), 99, 1, 2, 99, 0, 3, 99];
  const file = memoryFile([[3 * mib, numbers64(entries, 'LE')]]);
  const size = 8 * mib;
  const layout = {
    size,
    clusterSize: mib,
    tableOffset: 3 * mib,
    blockSize: mib,
    sectorSize: 512,
    chunkBlocks: 2,
    isDifferencing: false,
    replayed: undefined,
  };
  const find = async (start: number, isDifferencing = false): Promise<unknown> => {
    const mapping = new VhdxMapping({ ...layout, isDifferencing }, file);
    const { kind, length, ...more } = await placeOf(mapping, start, size - start);
    return [kind, length, 'offset' in more ? more.offset : undefined];
  };
  assert.deepEqual(await find(1), ['data', 3 * mib - 1, 4 * mib + 1]);
  assert.deepEqual(await find(3 * mib), ['data', mib, 6 * mib]);
  assert.deepEqual(await find(4 * mib), ['zero', 4 * mib, undefined]);
  assert.deepEqual(await find(4 * mib, true), ['zero', 2 * mib, undefined]);
  assert.deepEqual(await find(6 * mib, true), ['unallocated', mib, undefined]);
});

function differing(sectorSize: number, parent: Readonly<Record<string, string>>): BuiltImage {
  const all = (salt: number): Buffer => pattern(salt, mib);
  return {
    size: 9 * mib + 4096,
    blockSize: mib,
    sectorSize,
    parent,
    blocks: [
      { index: 0, state: 6, data: all(1) },
      { index: 2, state: 1 },
      { index: 3, state: 2 },
      { index: 4, state: 3 },
      { index: 5, state: 7, data: all(2), isPresent: (sector) => sector % 3 === 1 },
      { index: 6, state: 7, data: all(3), isPresent: (sector) => sector >= 17 },
      { index: 7, state: 7, data: all(4), isPresent: () => false },
      { index: 9, state: 7, data: all(5).subarray(0, 4096), isPresent: (sector) => sector === 0 },
    ],
  };
}

/** How parents are named, and what of it counts. */
const parents: readonly {
  readonly what: string;
  readonly pairs: Readonly<Record<string, string>>;
  /** Relative to the image's folder. */
  readonly found: string;
}[] = [
  {
    what: 'relative path',
    pairs: {
      volume_path: '\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\a\\other.vhdx',
      absolute_win32_path: '\\\\?\\d:\\a\\other.vhdx',
      relative_path: '.\\below\\parent.vhdx',
    },
    found: './below/parent.vhdx',
  },
  {
    what: 'relative path to a folder above',
    pairs: { relative_path: '..\\größe\\parent.vhdx' },
    found: '../größe/parent.vhdx',
  },
  {
    what: 'path from a drive',
    pairs: {
      volume_path: '\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\a\\other.vhdx',
      absolute_win32_path: '\\\\?\\d:\\a\\parent.vhdx',
    },
    found: 'parent.vhdx',
  },
  {
    what: 'path from a volume',
    pairs: { volume_path: '\\\\?\\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\\a\\parent.vhdx' },
    found: 'parent.vhdx',
  },
];

for (const { what, pairs, found } of parents) {
  test(`a differencing image: ${what}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const own = path.join(await temporaryFolder(t), 'own');
    await mkdir(own);
    const parent = path.join(own, found);
    await mkdir(path.dirname(parent), { recursive: true });
    const words = ['create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', parent, '8M'];
    await runOk('qemu-img', words);
    await writeByQemu(parent, 'vhdx', ['write -P 9 100k 7M']);
    const below = await contentByQemu(parent, 'vhdx');
    for (const sectorSize of [512, 4096]) {
      const image = differing(sectorSize, pairs);
      const file = path.join(own, 'disk.vhdx');
      await writeFile(file, vhdxImage(image));
      await assertReads(t, file, 'vhdx', contentOf(image, below));
      await assertReads(t, file, 'vhdx', contentOf(image), { backing: 'ignore' });
      await using opened = await openReadOnly(file, 'vhdx');
      const { backingFilename, backingFormat } = await opened.info();
      assert.deepEqual(
        { backingFilename, backingFormat },
        {
          backingFilename: found,
          backingFormat: 'vhdx',
        },
      );
    }
    await rename(parent, `${parent}.gone`);
    const file = path.join(own, 'disk.vhdx');
    await assert.rejects(openReadOnly(file, 'vhdx'), /Could not open backing file/);
  });
}

test('a chain of differencing images, the second chunk of which is partly present', async (t) => {
  const folder = await temporaryFolder(t);
  const base: BuiltImage = {
    size: 4100 * mib,
    blockSize: mib,
    sectorSize: 512,
    blocks: [4095, 4096, 4097].map((index) => ({
      index,
      state: 6,
      data: pattern(index, mib),
    })),
  };
  const upper = (name: string, salt: number, step: number): BuiltImage => ({
    ...base,
    parent: { relative_path: name },
    blocks: [4095, 4097].map((index) => ({
      index,
      state: 7,
      data: pattern(index + salt, mib),
      isPresent: (sector: number) => sector % step === 2,
    })),
  });
  const middle = upper('base.vhdx', 100, 5);
  const top = upper('middle.vhdx', 200, 7);
  await writeFile(path.join(folder, 'base.vhdx'), vhdxImage(base));
  await writeFile(path.join(folder, 'middle.vhdx'), vhdxImage(middle));
  await writeFile(path.join(folder, 'top.vhdx'), vhdxImage(top));
  const [start, end] = [4094 * mib, 4099 * mib];
  const content = [base, middle, top].reduce<Buffer>(
    (below, image) => contentOf(image, below, start, end),
    Buffer.alloc(0),
  );
  await using image = await openReadOnly(path.join(folder, 'top.vhdx'), 'vhdx');
  const found = Buffer.alloc(end - start);
  await image.read(found, start);
  assert.ok(found.equals(content));
});

test('the header that counts, and the region table', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  const good = vhdxImage(everyState);
  const content = contentOf(everyState);
  const other = headerOf(9n, undefined);
  const changes: ((bytes: Buffer) => void)[] = [
    // The second is newer; the first one's log offset is nonsense.
    (bytes) => {
      bytes.writeBigUInt64LE(17n, 64 * kib + 72);
      other.copy(bytes, 128 * kib);
    },
    // The first is newer, and torn.
    (bytes) => {
      bytes.writeUInt8(1, 64 * kib + 4000);
    },
    // Both are the same.
    (bytes) => {
      other.copy(bytes, 64 * kib);
      other.copy(bytes, 128 * kib);
    },
  ];
  for (const change of changes) {
    const bytes = Buffer.from(good);
    change(bytes);
    await writeFile(file, bytes);
    assert.ok((await assertReadsAsQemu(t, file, 'vhdx')).equals(content));
  }
  // QEMU looks at the first region table alone.
  const torn = Buffer.from(good);
  torn.writeUInt8(1, 192 * kib + 60_000);
  await writeFile(file, torn);
  await assertReads(t, file, 'vhdx', content);
});
