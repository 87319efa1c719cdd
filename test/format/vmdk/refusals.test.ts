/** Damaged VMDK images are refused field by field, in QEMU's words where it has some. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';
import { cowd, descriptor, hosted, pattern, seSparse } from './builders.js';
import { assertFails, assertRefusals, bytes32, bytes64 } from './referee.js';

const sector = 512;
const le32 = (value: number): number[] => bytes32(value, 'LE');
const le64 = (value: number | bigint): number[] => bytes64(value, 'LE');
const grains = [pattern(1, 4096), undefined, pattern(2, 4096), pattern(3, 4096)];
const text = descriptor('monolithicSparse', ['RW 32 SPARSE "damaged.vmdk"']);

test('headers of hosted extents', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.vmdk');
  await writeFile(
    file,
    hosted({ capacity: 32, grain: 8, grains, tableEntries: 16, descriptor: text }),
  );
  const tooFar = `Could not read l1 table from extent '${file}'`;
  await assertRefusals(
    file,
    [
      { what: 'magic', at: 0, bytes: [0], says: 'invalid VMDK image descriptor' },
      { what: 'version', at: 4, bytes: le32(4), says: 'Unsupported VMDK version 4' },
      // One entry of the directory more than there may be.
      {
        ...{ what: 'capacity', at: 12, bytes: le64(2 ** 25 * 128 + 1) },
        says: 'L1 size too big',
      },
      { what: 'grain 0', at: 20, bytes: le64(0), says: 'L1 entry size is invalid' },
      {
        ...{ what: 'grain', at: 20, bytes: le64(0x200001) },
        says: 'Invalid granularity, image may be corrupt',
      },
      { what: 'no entries', at: 44, bytes: le32(0), says: 'L1 entry size is invalid' },
      { what: 'entries', at: 44, bytes: le32(513), says: 'L2 table size too big' },
      { what: 'directory', at: 56, bytes: le64(2 ** 54), says: tooFar },
      {
        ...{ what: 'overhead', at: 64, bytes: le64(100_000) },
        says: 'File truncated, expecting at least 51200000 bytes',
      },
      {
        ...{ what: 'identity', at: sector + text.indexOf('CID='), bytes: [0x43, 0x49, 0x58] },
        says: 'invalid VMDK image descriptor: CID is missing or no number',
        // It takes the parent's for it.
        qemu: 'reads',
      },
      {
        ...{ what: 'parent', at: sector + text.indexOf('parentCID='), bytes: [0x71] },
        says: 'invalid VMDK image descriptor: parentCID is missing or no number',
        qemu: 'fails',
      },
    ],
    'vmdk',
  );
});

test('what is too large to be addressed, and too large a grain to be inflated', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.vmdk');
  const large = hosted({ capacity: 32, grain: 8, grains, tableEntries: 512, descriptor: text });
  // The largest grains, so that the directory stays small.
  large.writeBigUInt64LE(0x200000n, 20);
  large.writeBigUInt64LE(2n ** 52n, 12);
  await writeFile(file, large);
  await assertFails(file, 'vmdk', 'opened', (message) => {
    assert.equal(message, `Could not open '${file}': Image is too big`);
  });
  const compressed = hosted({ capacity: 32, grain: 8, grains, compression: 'marked' });
  compressed.writeBigUInt64LE(0x20001n, 20);
  await writeFile(file, compressed);
  await assertFails(file, 'vmdk', 'opened', (message) => {
    assert.equal(message, `Could not open '${file}': Invalid granularity, image may be corrupt`);
  });
});

test('footers and compressed grains', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.vmdk');
  const own = { capacity: 32, grain: 8, grains, descriptor: text, hasFooter: true };
  const bytes = hosted({ ...own, compression: 'marked' });
  await writeFile(file, bytes);
  const footer = bytes.length - 3 * sector;
  const first = 21 * sector;
  const read = { when: 'read', qemu: 'fails' } as const;
  await assertRefusals(
    file,
    [
      { what: 'marker', at: footer + 12, bytes: [2], says: 'Invalid footer' },
      { what: 'marker’s size', at: footer + 8, bytes: [1], says: 'Invalid footer' },
      { what: 'magic', at: footer + sector, bytes: [0], says: 'Invalid footer' },
      { what: 'end', at: footer + 2 * sector + 12, bytes: [1], says: 'Invalid footer' },
      {
        ...{ what: 'version', at: footer + sector + 4, bytes: le32(9) },
        says: 'Unsupported VMDK version 9',
      },
      {
        ...{ what: 'length 0', at: first + 8, bytes: le32(0), ...read },
        says: 'a compressed grain has a length of 0',
      },
      {
        ...{ what: 'length', at: first + 8, bytes: le32(8193), ...read },
        says: 'a compressed grain has a length of 8193',
      },
      {
        ...{ what: 'data', at: first + 40, bytes: [0xff, 0xff, 0xff], ...read },
        says: 'a compressed grain is damaged',
      },
    ],
    'vmdk',
  );
  await writeFile(file, bytes.subarray(0, 2 * sector));
  await assertFails(file, 'vmdk', 'opened', (message) => {
    assert.equal(message, `Could not open '${file}': Failed to read footer`);
  });
});

test('a compressed grain of fewer bytes than a grain', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'damaged.vmdk');
  const short = [pattern(1, 4096), pattern(2, 4095)];
  await writeFile(
    file,
    hosted({ capacity: 16, grain: 8, grains: short, compression: 'marked', descriptor: text }),
  );
  await assertFails(file, 'vmdk', 'read', (message) => {
    assert.equal(message, `'${file}': a compressed grain has too few bytes`);
  });
  const { code } = await run('qemu-img', ['convert', '-O', 'raw', file, `${file}.raw`]);
  assert.notEqual(code, 0);
});

test('headers of COWD extents', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk-delta.vmdk');
  const image = path.join(folder, 'disk.vmdk');
  await writeFile(file, cowd(32, 8, grains));
  await writeFile(image, descriptor('vmfsSparse', ['RW 32 VMFSSPARSE "disk-delta.vmdk"']));
  await assertRefusals(
    file,
    [
      { what: 'magic', at: 0, bytes: [0], says: 'Image not in VMDK format' },
      {
        ...{ what: 'grain 0', at: 16, bytes: le32(0), qemu: 'fails' },
        says: 'Invalid granularity, image may be corrupt',
      },
      {
        ...{ what: 'grain', at: 16, bytes: le32(0x200001) },
        says: 'Invalid granularity, image may be corrupt',
      },
      { what: 'directory', at: 24, bytes: le32(2 ** 25 + 1), says: 'L1 size too big' },
      {
        ...{ what: 'no directory', at: 24, bytes: le32(0), when: 'read', qemu: 'fails' },
        says: 'the grain directory is too short',
      },
    ],
    'vmdk',
    image,
  );
  await assertFails(file, 'vmdk', 'opened', (message) => {
    assert.match(message, /: A COWD extent is opened by the descriptor that names it$/);
  });
});

test('headers and tables of SESparse extents', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk-sesparse.vmdk');
  const image = path.join(folder, 'disk.vmdk');
  await writeFile(file, seSparse(32, grains));
  await writeFile(image, descriptor('seSparse', ['RW 32 SESPARSE "disk-sesparse.vmdk"']));
  const zeroes = ' 0x0000000000000000';
  const directory = 2 * sector;
  const table = 3 * sector;
  const read = { when: 'read', qemu: 'fails' } as const;
  const grainZero = "the table's entry of grain 0 is invalid";
  await assertRefusals(
    file,
    [
      { what: 'magic', at: 0, bytes: [1], says: 'Bad const header magic: 0x00000000cafeba01' },
      { what: 'version', at: 8, bytes: [2], says: 'Unsupported version: 0x0000000200000002' },
      { what: 'capacity', at: 16, bytes: le64(2n ** 62n), says: 'Image is too big', qemu: 'fails' },
      { what: 'grain', at: 24, bytes: [16], says: 'Unsupported grain size: 16' },
      { what: 'table', at: 32, bytes: [65], says: 'Unsupported grain table size: 65' },
      { what: 'flags', at: 40, bytes: [0x80], says: 'Unsupported flags: 0x0000000000000080' },
      {
        ...{ what: 'reserved', at: 56, bytes: [3] },
        says: `Unsupported reserved bits:${zeroes} 0x0000000000000003${zeroes}${zeroes}`,
      },
      { what: 'padding', at: 300, bytes: [1], says: 'Unsupported non-zero const header padding' },
      {
        ...{ what: 'volatile header', at: 80, bytes: le64(2 ** 50), qemu: 'fails' },
        says: `Could not read volatile header from file '${file}'`,
      },
      {
        ...{ what: 'directory', at: 128, bytes: le64(2 ** 54) },
        says: `Could not read l1 table from extent '${file}'`,
      },
      { what: 'directory’s size', at: 136, bytes: le64(2 ** 19 + 1), says: 'L1 size too big' },
      {
        ...{ what: 'volatile magic', at: sector, bytes: [0xff] },
        says: 'Bad volatile header magic: 0x00000000cafecaff',
      },
      {
        ...{ what: 'journal', at: sector + 24, bytes: [1] },
        says: 'Image is dirty, Replaying journal not supported',
      },
      {
        ...{ what: 'volatile padding', at: sector + 500, bytes: [1] },
        says: 'Unsupported non-zero volatile header padding',
      },
      {
        ...{ what: 'kind of table', at: directory + 7, bytes: [0x20], ...read },
        says: 'entry 0 of the grain directory is invalid',
      },
      {
        ...{ what: 'number of table', at: directory, bytes: le32(0xffffffff), ...read },
        says: 'entry 0 of the grain directory is invalid',
      },
      {
        ...{ what: 'no directory', at: 136, bytes: le64(0), ...read },
        says: 'the grain directory is too short',
      },
      { what: 'kind of grain', at: table + 7, bytes: [0x40], ...read, says: grainZero },
      {
        what: 'no kind of grain',
        at: table,
        bytes: [1, 0, 0, 0, 0, 0, 0, 0],
        ...read,
        says: grainZero,
      },
      {
        ...{ what: 'place of grain', at: table, bytes: le64(0x30000fffffffffffn), ...read },
        says: grainZero,
      },
    ],
    'vmdk',
    image,
  );
});

const extentLines: readonly {
  readonly line: string;
  readonly says: string;
  /** Whether QEMU says the same; else it passes over the line. */
  readonly isQemu: boolean;
}[] = [
  { line: 'RW 8 FLAT "data.bin"', says: 'Invalid extent line: LINE', isQemu: true },
  { line: 'RW 8 FLAT "data.bin" -1', says: 'Invalid extent line: LINE', isQemu: true },
  { line: 'RW 8 VMFS "data.bin" 0', says: 'Invalid extent line: LINE', isQemu: true },
  { line: 'RW 8 SPARSE "data.bin" 0', says: 'Invalid extent line: LINE', isQemu: true },
  { line: 'RW 8 FLAT', says: 'Invalid extent line: LINE', isQemu: false },
  { line: 'RW 8 FLAT "" 0', says: 'Invalid extent line: LINE', isQemu: false },
  { line: 'RW -8 FLAT "data.bin" 0', says: 'Invalid extent line: LINE', isQemu: false },
  { line: 'RW x FLAT "data.bin" 0', says: 'Invalid extent line: LINE', isQemu: false },
  {
    line: 'RW 8 FLAT "data.bin" 99999999999999999',
    says: 'Invalid extent line: LINE',
    isQemu: false,
  },
  { line: 'RW 8 VMFSRDM "data.bin"', says: "Unsupported extent type 'VMFSRDM'", isQemu: false },
  {
    ...{ line: 'NOACCESS 8 FLAT "data.bin" 0', isQemu: false },
    says: "Unsupported extent access 'NOACCESS'",
  },
  { line: 'RW 99999999999999999 ZERO', says: 'Image is too big', isQemu: false },
];

test('lines of extents', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'data.bin'), pattern(1, 8192));
  const file = path.join(folder, 'disk.vmdk');
  for (const { line, says, isQemu } of extentLines) {
    // A good one before, so that the image is one without it.
    await writeFile(file, descriptor('monolithicFlat', ['RW 8 FLAT "data.bin" 0', line]));
    const why = says.replace('LINE', line);
    await assertFails(file, 'vmdk', 'opened', (message) => {
      assert.equal(message, `Could not open '${file}': ${why}`);
    });
    const { stderr } = await run('qemu-img', ['map', '-f', 'vmdk', file]);
    assert.equal(stderr.includes(why), isQemu, `${line}: ${stderr}`);
  }
});

test('descriptors', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'data.bin'), pattern(1, 8192));
  const file = path.join(folder, 'disk.vmdk');
  const lines = ['RW 8 FLAT "data.bin" 0'];
  const child = descriptor('monolithicFlat', lines, ['parentCID=00000001']);
  const why = 'invalid VMDK image descriptor';
  for (const [content, says, qemuSays] of [
    ['', 'File is too small, not a valid image'],
    ['KDM', why],
    ['# nothing to see', why],
    [descriptor('custom', lines), "Unsupported image type 'custom'"],
    [descriptor('monolithicFlat', []), `${why}: it names no extents`, ''],
    [
      `${child}parentFileNameHint="x`,
      `${why}: the name of the parent does not end`,
      'Invalid argument',
    ],
    [
      `${child}parentFileNameHint="${'x'.repeat(4096)}"`,
      'Backing file name too long',
      'Invalid argument',
    ],
  ] as const) {
    await writeFile(file, content);
    await assertFails(file, 'vmdk', 'opened', (message) => {
      assert.equal(message, `Could not open '${file}': ${says}`);
    });
    const { code, stderr } = await run('qemu-img', ['info', '-f', 'vmdk', file]);
    assert.notEqual(code, 0, says);
    assert.ok(stderr.includes(qemuSays ?? says), stderr);
  }
});

test('more extents than may be open', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.vmdk');
  const lines = Array<string>(4097).fill('RW 1 ZERO');
  await writeFile(file, descriptor('monolithicFlat', lines));
  await assertFails(file, 'vmdk', 'opened', (message) => {
    assert.equal(message, `Could not open '${file}': more than 4096 extents`);
  });
  await writeFile(file, descriptor('monolithicFlat', lines.slice(1)));
  await using image = await openImage(file, { format: 'vmdk', readOnly: true });
  assert.equal(image.size, 4096 * sector);
});
