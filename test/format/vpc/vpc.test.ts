/** VHD images of QEMU's making read as QEMU reads them; others, made by hand, as they were made. */
import assert from 'node:assert/strict';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { vhdMapping } from '../../../src/format/vpc/mapping.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';
import {
  type Damage,
  assertMapsAsQemu,
  assertReads,
  assertReadsAsQemu,
  assertRefusals,
  contentByQemu,
  extentsOf,
  memoryFile,
  numbers32,
  openReadOnly,
  pattern,
  placeOf,
  setNumber,
  writeByQemu,
} from '../vhdx/referee.js';
import {
  type DifferencingImage,
  type ParentLocator,
  contentOf,
  differencingImage,
  footerOf,
  setChecksum,
} from './vhd-builder.js';

const mib = 1024 * 1024;
const writes = [
  'write -P 1 5M 200k',
  'write -P 2 0 2M',
  'write -P 3 2M 1M',
  'write -P 4 4095k 2k',
  'write -P 5 8M 512',
];

async function make(t: TestContext, options: string, size: string): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'disk.vhd');
  await runOk('qemu-img', ['create', '-q', '-f', 'vpc', '-o', options, file, size]);
  return file;
}

for (const options of ['subformat=dynamic', 'subformat=dynamic,force_size=on']) {
  test(options, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const file = await make(t, options, '9437184');
    await writeByQemu(file, 'vpc', writes);
    await assertReadsAsQemu(t, file, 'vpc');
    await using image = await openReadOnly(file, 'vpc');
    assert.equal((await image.info()).clusterSize, 2 * mib);
  });
}

for (const options of ['subformat=fixed', 'subformat=fixed,force_size=on']) {
  test(options, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const file = await make(t, options, '9437184');
    await writeByQemu(file, 'vpc', writes);
    const content = await assertReadsAsQemu(t, file, 'vpc');
    await using image = await openReadOnly(file, 'vpc');
    assert.deepEqual(await extentsOf(image), [
      {
        start: 0,
        length: content.length,
        depth: 0,
        present: true,
        data: true,
        compressed: false,
        offset: 0,
      },
    ]);
    assert.equal((await image.info()).clusterSize, undefined);
  });
}

test('a large table, of which little is there', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 'subformat=dynamic,force_size=on', '2040G');
  await writeByQemu(file, 'vpc', [
    'write -P 1 33816576k 64k',
    'write -P 2 2190433316864 4096',
    'write -P 3 1T 2M',
  ]);
  await assertMapsAsQemu(file, 'vpc');
});

test('one lookup finds all blocks that are not there', async () => {
  const entries = [0xffffffff, 0xffffffff, 9, 0xffffffff];
  const file = memoryFile([[1536, numbers32(entries, 'BE')]]);
  const size = 8 * mib;
  const blocks = {
    tableOffset: 1536,
    tableEntries: 4,
    blockSize: 2 * mib,
    bitmapBytes: 512,
  };
  for (const isDifferencing of [false, true]) {
    const layout = { size, clusterSize: 2 * mib, blocks, isDifferencing };
    const mapping = vhdMapping(layout, file);
    const kind = isDifferencing ? 'unallocated' : 'zero';
    assert.deepEqual(await placeOf(mapping, 1, size - 1), { kind, length: 4 * mib - 1 });
    assert.deepEqual(await placeOf(mapping, 7 * mib, 1000), { kind, length: 1000 });
  }
});

test('which size counts, by who made the image', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vhd');
  const data = pattern(9, mib);
  const creators = ['vpc ', 'qemu', 'qem2', 'win ', 'd2v ', 'tap\0', 'CTXS', 'wa\0\0', 'vbox'];
  const geometries = [
    [10, 4, 17],
    [65535, 16, 255],
  ] as const;
  const sizes: number[] = [];
  for (const creator of creators) {
    for (const geometry of geometries) {
      const footer = footerOf({ creator, currentSize: mib, geometry, type: 2 });
      await writeFile(file, Buffer.concat([data, footer]));
      sizes.push((await assertReadsAsQemu(t, file, 'vpc')).length);
    }
  }
  const byGeometry = 10 * 4 * 17 * 512;
  assert.deepEqual(sizes.slice(0, 4), [byGeometry, mib, byGeometry, mib]);
  assert.ok(sizes.slice(4).every((size) => size === mib));
});

test('a fixed disk is longer than its file: what follows is the footer, and zeroes', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vhd');
  const footer = footerOf({ creator: 'vpc ', currentSize: mib, geometry: [40, 4, 17], type: 2 });
  await writeFile(file, Buffer.concat([pattern(9, mib), footer]));
  await assertReadsAsQemu(t, file, 'vpc');
});

/** An image whose blocks have all, some or none of their sectors. */
function differing(locators: readonly ParentLocator[], parentName: string): DifferencingImage {
  const blockSize = 512 * 1024;
  return {
    size: 5 * mib + 3 * 512,
    blockSize,
    parentName,
    locators,
    blocks: [
      { index: 0, data: pattern(1, blockSize), isPresent: () => true },
      { index: 7, data: pattern(2, blockSize), isPresent: (sector) => sector % 3 === 0 },
      { index: 3, data: pattern(3, blockSize), isPresent: (sector) => sector >= 17 },
      { index: 4, data: pattern(4, blockSize), isPresent: (sector) => sector < 1000 },
      { index: 5, data: pattern(5, blockSize), isPresent: () => false },
      { index: 10, data: pattern(6, blockSize), isPresent: (sector) => sector === 1 },
    ],
  };
}

function utf16(text: string): Buffer {
  return Buffer.from(text, 'utf16le');
}

/** How parents are named, and what of it counts. */
const parents: readonly {
  readonly what: string;
  readonly locators: readonly ParentLocator[];
  readonly parentName: string;
  /** Relative to the image's folder. */
  readonly found: string;
}[] = [
  {
    what: 'relative path',
    locators: [
      { code: 'W2ku', data: utf16('D:\\elsewhere\\other.vhd') },
      { code: 'W2ru', data: utf16('.\\below\\parent.vhd') },
    ],
    parentName: 'D:\\elsewhere\\other.vhd',
    found: './below/parent.vhd',
  },
  {
    what: 'relative path to a folder above, in which a letter is not of ASCII',
    locators: [{ code: 'W2ru', data: utf16('..\\größe\\parent.vhd\0') }],
    parentName: '',
    found: '../größe/parent.vhd',
  },
  {
    what: 'name of the file alone, which looks like a protocol',
    locators: [{ code: 'W2ru', data: utf16('nbd:parent.vhd') }],
    parentName: '',
    found: './nbd:parent.vhd',
  },
  {
    what: 'URL of Xen',
    locators: [
      { code: 'MacX', data: Buffer.from('file://./my%20parent.vhd') },
      { code: 'W2ku', data: utf16('D:\\elsewhere\\other.vhd') },
    ],
    parentName: '',
    found: './my parent.vhd',
  },
  {
    what: 'absolute path',
    locators: [{ code: 'W2ku', data: utf16('\\\\server\\share\\parent.vhd') }],
    parentName: 'other.vhd',
    found: 'parent.vhd',
  },
  { what: 'name for people', locators: [], parentName: 'C:\\parent.vhd', found: 'parent.vhd' },
];

for (const { what, locators, parentName, found } of parents) {
  test(`a differencing image: ${what}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const folder = await temporaryFolder(t);
    const own = path.join(folder, 'own');
    await mkdir(own);
    const parent = path.join(own, found);
    await mkdir(path.dirname(parent), { recursive: true });
    await runOk('qemu-img', ['create', '-q', '-f', 'vpc', '-o', 'force_size=on', parent, '4M']);
    await writeByQemu(parent, 'vpc', ['write -P 9 100k 3M']);
    const image = differing(locators, parentName);
    const file = path.join(own, 'disk.vhd');
    await writeFile(file, differencingImage(image));
    await assertReads(t, file, 'vpc', contentOf(image, await contentByQemu(parent, 'vpc')));
    await using opened = await openReadOnly(file, 'vpc');
    const { backingFilename, backingFormat } = await opened.info();
    assert.deepEqual(
      { backingFilename, backingFormat },
      {
        backingFilename: found,
        backingFormat: 'vpc',
      },
    );
  });
}

test('a differencing image on a fixed one, which nothing but its name tells', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const below = pattern(8, 6 * mib);
  const footer = footerOf({
    creator: 'win ',
    currentSize: below.length,
    geometry: [1, 1, 1],
    type: 2,
  });
  await writeFile(path.join(folder, 'parent.vhd'), Buffer.concat([below, footer]));
  const image = {
    ...differing([{ code: 'W2ru', data: utf16('parent.vhd') }], ''),
    // Not aligned to its entries, so that one of them lies across a piece that is remembered.
    tableOffset: 65536 - 6,
  };
  const file = path.join(folder, 'disk.vhd');
  await writeFile(file, differencingImage(image));
  await assertReads(t, file, 'vpc', contentOf(image, below.subarray(0, image.size)));
  // Without what is below it, the rest is zeroes.
  const alone = contentOf(image, Buffer.alloc(0));
  await assertReads(t, file, 'vpc', alone, { backing: 'ignore' });
  await rename(path.join(folder, 'parent.vhd'), path.join(folder, 'gone.vhd'));
  await assert.rejects(openReadOnly(file, 'vpc'), /Could not open backing file/);
});

test('what is refused of a dynamic image', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = await make(t, 'subformat=dynamic', '5M');
  await writeByQemu(file, 'vpc', ['write -P 1 0 4M']);
  const good = await readFile(file);
  const header = Number(good.readBigUInt64BE(16));
  const table = Number(good.readBigUInt64BE(header + 16));
  const inFooter =
    (change: (bytes: Buffer) => void) =>
    (bytes: Buffer): void => {
      change(bytes);
      setChecksum(bytes.subarray(0, 512), 64);
    };
  const truncated =
    'block-vpc: free_data_block_offset points after the end of file. The image has been truncated.';
  const damages: readonly Damage[] = [
    { what: 'checksum', change: setNumber(70, 1, '8'), says: 'Incorrect header checksum' },
    {
      what: 'type',
      change: inFooter(setNumber(60, 5, 'BE32')),
      says: 'invalid VPC image',
      qemu: 'reads',
    },
    {
      what: 'fixed disk with a header',
      change: inFooter(setNumber(60, 2, 'BE32')),
      says: 'invalid VPC image',
      qemu: 'reads',
    },
    {
      what: 'size',
      change: inFooter((bytes) => {
        bytes.write('win ', 28);
        bytes.writeBigUInt64BE(0xff000001n * 512n, 48);
      }),
      says: 'File too large',
    },
    {
      what: 'place of the header',
      change: inFooter(setNumber(16, 2n ** 64n - 1n, 'BE64')),
      says: 'Error reading dynamic VHD header',
    },
    {
      what: 'header beyond the end',
      change: inFooter(setNumber(16, good.length - 1000, 'BE64')),
      says: 'Error reading dynamic VHD header',
      qemu: 'fails',
    },
    { what: 'header', change: setNumber(header, 0, '8'), says: 'Invalid header magic' },
    {
      what: 'block size',
      change: setNumber(header + 32, 3 * mib, 'BE32'),
      says: 'Invalid block size 3145728',
    },
    {
      what: 'small blocks',
      change: setNumber(header + 32, 256, 'BE32'),
      says: 'Invalid block size 256',
    },
    {
      what: 'entries',
      change: setNumber(header + 28, 2, 'BE32'),
      says: 'Page table too small',
    },
    {
      what: 'too many entries',
      change: setNumber(header + 28, 0x20000000, 'BE32'),
      says: 'Max Table Entries too large (536870912)',
    },
    {
      what: 'place of the table',
      change: setNumber(header + 16, good.length, 'BE64'),
      says: truncated,
    },
    {
      what: 'table beyond every file',
      change: setNumber(header + 16, 2n ** 64n - 1n, 'BE64'),
      says: truncated,
      qemu: 'fails',
    },
    { what: 'block', change: setNumber(table, 0xfffffffe, 'BE32'), says: truncated },
    {
      what: 'end of the file',
      change: (bytes) => bytes.subarray(0, bytes.length - 1024),
      says: truncated,
    },
    {
      what: 'file of 500 bytes',
      change: (bytes) => bytes.subarray(0, 500),
      says: 'Error reading dynamic VHD header',
      qemu: 'fails',
    },
    {
      what: 'no copy at the begin',
      change: (bytes) => {
        bytes.fill(0, 0, 512);
      },
      says: 'invalid VPC image',
    },
    {
      what: 'empty file',
      change: () => Buffer.alloc(0),
      says: 'File too small for a VHD header',
    },
  ];
  await assertRefusals(file, 'vpc', damages);
});

test('what is refused of a differencing image', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const parent = path.join(folder, 'parent.vhd');
  await runOk('qemu-img', ['create', '-q', '-f', 'vpc', '-o', 'force_size=on', parent, '4M']);
  const file = path.join(folder, 'disk.vhd');
  const image = differing([{ code: 'W2ru', data: utf16('parent.vhd') }], '');
  await writeFile(file, differencingImage(image));
  const locator = 512 + 576;
  const unasked = { qemu: 'unasked' } as const;
  await assertRefusals(file, 'vpc', [
    {
      what: 'no word of a parent',
      change: setNumber(locator, 0, 'BE32'),
      says: 'The image does not say where its parent is',
      ...unasked,
    },
    {
      what: 'long path',
      change: setNumber(locator + 8, 65535, 'BE32'),
      says: 'Invalid parent locator',
      ...unasked,
    },
    {
      what: 'path beyond the end',
      change: setNumber(locator + 16, 2n ** 63n, 'BE64'),
      says: 'Invalid parent locator',
      ...unasked,
    },
    {
      what: 'blocks that have no bitmap',
      change: (bytes) => {
        bytes.writeUInt32BE(2048, 512 + 32);
        bytes.writeUInt32BE(2561, 512 + 28);
        bytes.fill(0xff, 4096 + 8192);
        // The table is overwritten with entries that have no block.
        bytes.fill(0xff, 1536, 4096);
        const longer = Buffer.concat([bytes, Buffer.alloc(65536, 0xff)]);
        longer.writeBigUInt64BE(BigInt(bytes.length), 512 + 16);
        return longer;
      },
      says: 'Invalid block size 2048',
      ...unasked,
    },
  ]);
  // QEMU takes the parent for zeroes, without a word.
  assert.equal((await run('qemu-img', ['info', '-f', 'vpc', file])).code, 0);
});
