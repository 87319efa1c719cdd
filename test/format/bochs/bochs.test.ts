/** Growing disks of Bochs made by hand, read as QEMU reads them. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';
import {
  type Compared,
  assertReads,
  assertReadsAsQemu,
  assertRefusals,
  bytes32,
  bytes64,
} from '../vmdk/referee.js';
import { bochs } from './builders.js';

const compared: Compared = { format: 'bochs', map: 'promises' };
const sector = 512;
const absent = 0xffffffff;

const some = (each: number): boolean => each % 13 > 5 || (each > 100 && each < 160);
const all = (): boolean => true;
const none = (): boolean => false;

for (const version of [1, 2] as const) {
  for (const [extentBytes, bitmap, header] of [
    [4096, 1, 512],
    [32 * 1024, 512, 512],
    [256 * 1024, 512, 600],
    // Bitmaps of two sectors, and a catalog whose entries lie across what is read at a time.
    [4 * 1024 * 1024, 1024, 65_534],
  ] as const) {
    test(`version ${version}, extents of ${extentBytes} bytes`, async (t) => {
      if (!needsTool(t, 'qemu-img')) return;
      const folder = await temporaryFolder(t);
      const file = path.join(folder, 'disk.bochs');
      const extents = [some, undefined, undefined, all, all, none, undefined, some, undefined];
      const size = extents.length * extentBytes - 3 * sector;
      const { bytes, disk } = bochs({ version, extentBytes, bitmap, extents, size, header });
      await writeFile(file, bytes);
      const read = await assertReadsAsQemu(t, file, compared);
      assert.ok(read.equals(disk));
    });
  }
}

test('a catalog of many entries, and a file that ends early', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.bochs');
  const extents = Array.from({ length: 3000 }, (_, index) =>
    index % 1500 === 7 ? some : undefined,
  );
  const { bytes } = bochs({ version: 2, extentBytes: 4096, bitmap: 1, extents });
  // Of the extent that lies last in the file half of the data are missing, which read as zeroes.
  await writeFile(file, bytes.subarray(0, bytes.length - 2048));
  await assertReadsAsQemu(t, file, compared);
});

test('what is not a whole sector of the disk is left out', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.bochs');
  const own = { version: 2, extentBytes: 4096, bitmap: 1, extents: [some] } as const;
  await writeFile(file, bochs({ ...own, size: 4095 }).bytes);
  const { disk } = bochs({ ...own, size: 3584 });
  await assertReads(t, file, disk, compared);
  await using image = await openImage(file, { format: 'bochs', readOnly: true });
  assert.equal(image.clusterSize, undefined);
});

test('damaged images are refused', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.bochs');
  const extents = [some, undefined];
  await writeFile(file, bochs({ version: 2, extentBytes: 4096, bitmap: 1, extents }).bytes);
  const le32 = (value: number): number[] => bytes32(value, 'LE');
  const format = 'Image not in Bochs format';
  await assertRefusals(
    file,
    [
      { what: 'magic', at: 0, bytes: [0x62], says: format },
      { what: 'magic’s end', at: 22, bytes: [0x21], says: format },
      { what: 'type', at: 32, bytes: [0x72], says: format },
      { what: 'subtype', at: 48, bytes: [...Buffer.from('Volatile')], says: format },
      { what: 'version', at: 64, bytes: le32(0x30000), says: format },
      { what: 'catalog', at: 72, bytes: le32(0x100001), says: 'Catalog size is too large' },
      { what: 'no extent', at: 80, bytes: le32(0), says: 'Extent size must be at least 512' },
      { what: 'small extent', at: 80, bytes: le32(511), says: 'Extent size must be at least 512' },
      {
        what: 'odd extent',
        at: 80,
        bytes: le32(4608),
        says: 'Extent size 4608 is not a power of two',
      },
      { what: 'extent', at: 80, bytes: le32(0x1000000), says: 'Extent size 16777216 is too large' },
      {
        ...{ what: 'small catalog', at: 72, bytes: le32(1) },
        says: 'Catalog size is too small for this disk size',
      },
      {
        ...{ what: 'size', at: 88, bytes: bytes64(2n ** 63n, 'LE') },
        says: 'Catalog size is too small for this disk size',
      },
      {
        ...{ what: 'no bitmap', at: 76, bytes: le32(0), qemu: 'reads' },
        says: 'Bitmap size 0 is too small for this extent size',
      },
    ],
    'bochs',
  );
});

test('an extent beyond what can be addressed', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.bochs');
  const extentBytes = 8 * 1024 * 1024;
  const { bytes } = bochs({ version: 2, extentBytes, bitmap: 2048, extents: [undefined] });
  bytes.writeUInt32LE(absent - 1, sector);
  await writeFile(file, bytes);
  await using image = await openImage(file, { format: 'bochs', readOnly: true });
  await assert.rejects(image.read(Buffer.alloc(sector), 0), {
    message: `'${file}': entry 0 of the catalog is invalid`,
  });
  const { code } = await run('qemu-img', ['convert', '-f', 'bochs', file, `${file}.raw`]);
  assert.equal(code, 0, 'beyond the end of the file the real tool finds zeroes');
});
