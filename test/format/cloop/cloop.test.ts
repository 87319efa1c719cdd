/** Compressed loop devices made by hand, read as QEMU reads them. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, temporaryFolder } from '../../support/tools.js';
import { pattern } from '../vmdk/builders.js';
import {
  type Compared,
  assertReadsAsQemu,
  assertRefusals,
  bytes32,
  bytes64,
} from '../vmdk/referee.js';
import { cloop, headerBytes } from './builders.js';

const compared: Compared = { format: 'cloop', map: 'promises' };
const sector = 512;

for (const [blockBytes, count, gap] of [
  [64 * 1024, 40, 0],
  [64 * 1024, 3, 100],
  [256 * 1024, 9, 0],
  // The table goes beyond the first piece of it that is read.
  [sector, 9000, 0],
] as const) {
  test(`${count} blocks of ${blockBytes} bytes, ${gap} bytes apart`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.cloop');
    const blocks = Array.from({ length: count }, (_, index) => pattern(index, blockBytes));
    await writeFile(file, cloop(blocks, blockBytes, gap));
    // Small blocks take long: each is inflated by itself.
    const runs = blockBytes === sector ? 4 : 40;
    const read = await assertReadsAsQemu(t, file, { ...compared, runs });
    assert.ok(read.equals(Buffer.concat(blocks)));
  });
}

test('a block that does not get smaller, and one of zeroes', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.cloop');
  const noise = Buffer.from(pattern(3, 4096).map((byte, at) => byte ^ (at * 181) ^ (at >> 3)));
  await writeFile(file, cloop([noise, Buffer.alloc(4096), noise], 4096));
  await assertReadsAsQemu(t, file, compared);
});

test('a device of no blocks', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.cloop');
  await writeFile(file, cloop([], 4096));
  await using image = await openImage(file, { format: 'cloop', readOnly: true });
  assert.equal(image.size, 0);
  assert.equal(image.clusterSize, undefined);
});

test('damaged images are refused', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.cloop');
  const bytes = cloop([pattern(1, 4096), pattern(2, 4096), pattern(3, 4096)], 4096);
  await writeFile(file, bytes);
  const be32 = (value: number): number[] => bytes32(value, 'BE');
  const be64 = (value: number | bigint): number[] => bytes64(value, 'BE');
  const start = Number(bytes.readBigUInt64BE(headerBytes));
  await assertRefusals(
    file,
    [
      { what: 'script', at: 11, bytes: [0], says: 'Image not in cloop format', qemu: 'reads' },
      {
        what: 'odd block',
        at: 128,
        bytes: be32(4097),
        says: 'block_size 4097 must be a multiple of 512',
      },
      { what: 'no block', at: 128, bytes: be32(0), says: 'block_size cannot be zero' },
      {
        ...{ what: 'large block', at: 128, bytes: be32(67109376) },
        says: 'block_size 67109376 must be 64 MB or less',
      },
      {
        ...{ what: 'blocks', at: 132, bytes: be32(0x20000000) },
        says: 'n_blocks 536870912 must be 536870911 or less',
      },
      {
        ...{ what: 'table', at: 132, bytes: be32(64 * 1024 * 1024) },
        says: 'image requires too many offsets, try increasing block size',
      },
      {
        ...{ what: 'table beyond the end', at: 132, bytes: be32(100_000), qemu: 'fails' },
        says: 'the table of offsets ends beyond the file',
      },
      {
        ...{ what: 'order', at: headerBytes + 8, bytes: be64(start - 1), when: 'read' },
        says: 'offsets not monotonically increasing at index 1, image file is corrupt',
      },
      {
        ...{
          what: 'far offset',
          at: headerBytes + 24,
          bytes: be64(2n ** 60n),
          when: 'read',
          qemu: 'fails',
        },
        says: 'offsets not monotonically increasing at index 3, image file is corrupt',
      },
      {
        ...{ what: 'length', at: headerBytes + 8, bytes: be64(2 ** 28), when: 'read' },
        says: 'invalid compressed block size at index 1, image file is corrupt',
      },
      {
        ...{ what: 'data', at: start + 10, bytes: [1, 2, 3, 4], when: 'read', qemu: 'fails' },
        says: 'compressed block 0 is damaged',
      },
      {
        ...{ what: 'size of blocks', at: 128, bytes: be32(8192), when: 'read', qemu: 'fails' },
        says: 'compressed block 0 is damaged',
      },
    ],
    'cloop',
  );
});
