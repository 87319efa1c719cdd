/**
 * VHDX images that were not closed: they are read, and nothing is written, as they read once QEMU has
 * repaired a copy of them, which replays the log.
 */
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { replay } from '../../../src/format/vhdx/replayed-ranges.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';
import { assertReads, contentByQemu, extentsOf, openReadOnly, pattern } from './referee.js';
import {
  type BuiltImage,
  type BuiltWrite,
  contentOf,
  entryAt,
  logEntry,
  logWith,
  metadataOf,
  place,
  sign,
  vhdxImage,
} from './vhdx-builder.js';

const mib = 1024 * 1024;
const logId = '11111111-2222-3333-4444-555555555555';
const otherId = '99999999-2222-3333-4444-555555555555';

/** Three blocks that are there, and a table that knows of the first two alone. */
const written: BuiltImage = {
  size: 5 * mib,
  blockSize: mib,
  sectorSize: 512,
  blocks: [
    { index: 0, state: 6, data: pattern(1, mib) },
    { index: 3, state: 6, data: pattern(2, mib) },
    { index: 1, state: 6, data: pattern(3, mib) },
  ],
};
const fileLength = place.blocks + 3 * mib;

/** A sector of the table as it is after some writes. */
function tableSector(blocks: BuiltImage['blocks']): Buffer {
  const sector = Buffer.alloc(4096);
  for (const [order, { index, state }] of blocks.entries()) {
    sector.writeBigUInt64LE(BigInt(place.blocks + order * mib + state), index * 8);
  }
  return sector;
}

const allThree: BuiltWrite = { offset: place.table, data: tableSector(written.blocks) };
const firstOnly: BuiltWrite = {
  offset: place.table,
  data: tableSector(written.blocks.slice(0, 1)),
};

/** The file, whose table in its place knows of the first two blocks. */
function unclosed(log: Buffer): Buffer {
  const file = vhdxImage({ ...written, logId, log });
  file.writeBigUInt64LE(0n, entryAt(written, 1));
  return file;
}

/**
 * Writes a file, and asserts that it is read as it is once the log has been replayed.
 *
 * @param asQemu whether QEMU replays it as it has to be
 */
async function assertReplayed(
  t: TestContext,
  bytes: Buffer,
  expected: Buffer,
  { asQemu = true } = {},
): Promise<void> {
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  await writeFile(file, bytes);
  await assertReads(t, file, 'vhdx', expected);
  await using image = await openReadOnly(file, 'vhdx');
  assert.equal((await image.info()).dirtyFlag, true);
  assert.ok((await readFile(file)).equals(bytes), 'nothing is written');
  if (!asQemu || !needsTool(t, 'qemu-img')) return;
  assert.match(
    (await run('qemu-img', ['info', '-f', 'vhdx', file])).stderr,
    /log that needs to be/,
  );
  const repaired = `${file}.repaired`;
  await copyFile(file, repaired);
  await runOk('qemu-img', ['check', '-q', '-r', 'all', '-f', 'vhdx', repaired]);
  assert.ok((await contentByQemu(repaired, 'vhdx')).equals(expected), 'as QEMU repairs it');
}

function entry(sequenceNumber: number, tail: number, writes: readonly BuiltWrite[]): Buffer {
  return logEntry({ logId, sequenceNumber, tail, writes, flushedLength: fileLength });
}

test('one entry, of the table', async (t) => {
  const log = logWith([[0, entry(1, 0, [allThree])]]);
  await assertReplayed(t, unclosed(log), contentOf(written));
});

test('entries of which the last holds', async (t) => {
  const zeroes: BuiltWrite = { offset: place.table, zeroes: 8192 };
  const log = logWith([
    [4096, entry(7, 4096, [firstOnly])],
    [4096 + 8192, entry(8, 4096, [allThree])],
    [4096 + 2 * 8192, entry(9, 4096, [zeroes])],
    [8192 + 2 * 8192, entry(10, 4096, [firstOnly])],
  ]);
  const content = contentOf({ ...written, blocks: written.blocks.slice(0, 1) });
  await assertReplayed(t, unclosed(log), content);
  // Of the same entries those are not part of the sequence that the last one's tail leaves out.
  const shorter = logWith([
    [4096, entry(7, 4096, [{ offset: place.metadata, zeroes: 4096 }])],
    [8192, entry(8, 8192, [allThree])],
  ]);
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  await writeFile(file, unclosed(shorter));
  await assertReads(t, file, 'vhdx', contentOf(written));
});

test('zeroes over a part of the table', async (t) => {
  const log = logWith([[0, entry(1, 0, [{ offset: place.table, zeroes: mib }])]]);
  await assertReplayed(t, unclosed(log), Buffer.alloc(written.size));
});

test('a sequence that goes over the end of the log, and an entry that does', async (t) => {
  const log = logWith([
    [mib - 12288, entry(5, mib - 12288, [firstOnly])],
    [mib - 4096, entry(6, mib - 12288, [allThree])],
    [4096, entry(7, mib - 12288, [])],
  ]);
  // QEMU holds the last entry, at the begin of the log, for the newest sequence, whatever its tail says.
  await assertReplayed(t, unclosed(log), contentOf(written), { asQemu: false });
});

test('an entry that is all of the log', async (t) => {
  const rest = Array.from({ length: 253 }, (_, index) => ({
    offset: place.table + 4096 * (index + 1),
    data: Buffer.alloc(4096),
  }));
  const whole = entry(1, 0, [allThree, ...rest]);
  assert.equal(whole.length, mib);
  // QEMU mistakes the second sector of descriptors for the first.
  await assertReplayed(t, unclosed(whole), contentOf(written), { asQemu: false });
});

test('what else may lie in a log', async (t) => {
  const torn = entry(23, 65536, [firstOnly]);
  torn.writeUInt8(torn.readUInt8(4200) ^ 1, 4200);
  const log = logWith([
    // Of a sequence before.
    [0, entry(3, 0, [firstOnly])],
    // Of another time.
    [16384, logEntry({ logId: otherId, sequenceNumber: 99, tail: 16384, writes: [firstOnly] })],
    // The newest, and one that was not written to its end.
    [65536, entry(21, 65536, [firstOnly])],
    [65536 + 8192, entry(22, 65536, [allThree])],
    [65536 + 2 * 8192, torn],
    // Of a sequence before, further on.
    [262144, entry(9, 262144, [firstOnly])],
  ]);
  await assertReplayed(t, unclosed(log), contentOf(written));
});

test('the metadata and the region table', async (t) => {
  const smaller = { ...written, size: 4 * mib };
  const metadata = metadataOf(smaller);
  const items = Buffer.alloc(4096);
  metadata.copy(items, 0, 65536);
  const file = unclosed(logWith([]));
  const regions = Buffer.from(file.subarray(192 * 1024, 192 * 1024 + 4096));
  const writes: BuiltWrite[] = [
    allThree,
    { offset: place.metadata + 65536, data: items },
    { offset: 192 * 1024, data: regions },
  ];
  const bytes = unclosed(logWith([[0, entry(1, 0, writes)]]));
  bytes.fill(0, 192 * 1024, 192 * 1024 + 4096);
  await assertReplayed(t, bytes, contentOf(smaller));
});

test('data of the disk, which no log should have', async (t) => {
  const sector = pattern(77, 4096);
  const other = pattern(78, 4096);
  const at = place.blocks + 5 * 4096;
  const log = logWith([
    [
      0,
      entry(1, 0, [
        allThree,
        { offset: at, data: sector },
        { offset: at + 8192, zeroes: 8192 },
        { offset: place.blocks + mib - 4096, data: other },
      ]),
    ],
  ]);
  const content = contentOf(written);
  sector.copy(content, 5 * 4096);
  content.fill(0, 7 * 4096, 9 * 4096);
  other.copy(content, mib - 4096);
  await assertReplayed(t, unclosed(log), content);
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  await writeFile(file, unclosed(log));
  await using image = await openReadOnly(file, 'vhdx');
  const extents = (await extentsOf(image)).map(({ start, data, compressed }) => [
    start! / 4096,
    data,
    compressed,
  ]);
  assert.deepEqual(extents.slice(0, 6), [
    [0, true, false],
    [5, true, true],
    [6, true, false],
    [7, false, false],
    [9, true, false],
    [255, true, true],
  ]);
  // Parts of sectors of the log, one after the other.
  for (const [start, bytes] of [
    [5 * 4096, sector],
    [mib - 4096, other],
  ] as const) {
    const part = Buffer.alloc(1000);
    await image.read(part, start + 1001);
    assert.ok(part.equals(bytes.subarray(1001, 2001)));
  }
});

test('a file that has to be made longer', async (t) => {
  const bytes = unclosed(
    logWith([
      [
        0,
        logEntry({
          logId,
          sequenceNumber: 1,
          tail: 0,
          writes: [allThree],
          flushedLength: fileLength - mib,
          lastLength: fileLength,
        }),
      ],
    ]),
  ).subarray(0, fileLength - mib);
  const content = contentOf(written);
  // The block that the table has last.
  content.fill(0, mib, 2 * mib);
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  await writeFile(file, bytes);
  await assertReads(t, file, 'vhdx', content);
});

test('a log in which nothing was logged', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const torn = entry(1, 0, [firstOnly]);
  torn.writeUInt8(torn.readUInt8(4200) ^ 1, 4200);
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  for (const log of [
    logWith([]),
    logWith([[0, torn]]),
    logWith([[0, logEntry({ logId: otherId, sequenceNumber: 1, tail: 0, writes: [firstOnly] })]]),
  ]) {
    await writeFile(file, unclosed(log));
    const content = contentOf({ ...written, blocks: written.blocks.slice(0, 2) });
    assert.ok((await contentByQemu(file, 'vhdx')).equals(content));
    await assertReads(t, file, 'vhdx', content);
  }
});

/** Entries that are not valid, by one change each. The checksum is right. */
const invalid: readonly [what: string, change: (bytes: Buffer) => void][] = [
  ['length', (bytes) => bytes.writeUInt32LE(8193, 8)],
  ['length beyond the log', (bytes) => bytes.writeUInt32LE(2 * mib, 8)],
  ['no length', (bytes) => bytes.writeUInt32LE(0, 8)],
  ['sequence number', (bytes) => bytes.writeBigUInt64LE(0n, 16)],
  ['descriptors', (bytes) => bytes.writeUInt32LE(2, 24)],
  ['descriptors beyond every log', (bytes) => bytes.writeUInt32LE(2 ** 32 - 1, 24)],
  ['kind of a descriptor', (bytes) => bytes.writeUInt8(0, 64)],
  ['place that is written', (bytes) => bytes.writeBigUInt64LE(BigInt(place.table + 512), 80)],
  ['sequence number of a descriptor', (bytes) => bytes.writeBigUInt64LE(2n, 88)],
  ['kind of a sector', (bytes) => bytes.writeUInt8(0, 4096)],
  ['sequence number of a sector', (bytes) => bytes.writeUInt32LE(2, 8188)],
];

for (const [what, change] of invalid) {
  test(`an entry that is not valid: ${what}`, async (t) => {
    const bytes = entry(1, 0, [firstOnly]);
    change(bytes);
    sign(bytes);
    const file = path.join(await temporaryFolder(t), 'disk.vhdx');
    await writeFile(file, unclosed(logWith([[0, bytes]])));
    const content = contentOf({ ...written, blocks: written.blocks.slice(0, 2) });
    await assertReads(t, file, 'vhdx', content);
  });
}

test('what is refused', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  const refused = async (log: Buffer, says: string): Promise<void> => {
    await writeFile(file, unclosed(log));
    await assert.rejects(openReadOnly(file, 'vhdx'), {
      code: 'ERR_COWHERD_INVALID_IMAGE',
      message: `Could not open '${file}': ${says}`,
    });
  };
  await refused(
    logWith([[0, entry(4, 65536, [allThree])]]),
    'The VHDX log has no complete sequence',
  );
  await refused(
    logWith([
      [
        0,
        logEntry({
          logId,
          sequenceNumber: 1,
          tail: 0,
          writes: [allThree],
          flushedLength: fileLength + mib,
        }),
      ],
    ]),
    'The file is shorter than its VHDX log says: it has been truncated',
  );
  await refused(
    logWith([[0, entry(1, 0, [{ offset: 2 ** 60, zeroes: 4096 }])]]),
    `The VHDX log writes beyond every file, to ${2 ** 60}`,
  );
  // Entries of which each has all others in it.
  const nested = Array.from({ length: 256 }, (_, index) => {
    const bytes = Buffer.alloc(4096);
    entry(index + 1, index * 4096, []).copy(bytes);
    bytes.writeUInt32LE(mib, 8);
    return [index * 4096, bytes] as const;
  });
  await refused(logWith(nested), 'The VHDX log has entries within entries');
});

test('writes over one another: the last holds, in every place', () => {
  const cells = 40;
  const write = fc.record({
    at: fc.integer({ min: 0, max: cells - 1 }),
    length: fc.integer({ min: 0, max: 12 }),
    fill: fc.integer({ min: 1, max: 255 }),
    isZero: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(write, { maxLength: 30 }), (list) => {
      const expected = new Array<number>(cells + 12).fill(-1);
      const writes = list.map(({ at, length, fill, isZero }) => {
        expected.fill(isZero ? 0 : fill, at, at + (isZero ? length : 1));
        return {
          offset: at * 4096,
          length: isZero ? length * 4096 : 4096,
          sector: isZero ? undefined : Buffer.alloc(4096, fill),
        };
      });
      const { starts, ends, sectors, bytes } = replay(writes);
      const found = new Array<number>(cells + 12).fill(-1);
      for (const [range, start] of starts.entries()) {
        assert.ok(start < ends[range] && (range === 0 || ends[range - 1] <= start));
        const sector = sectors[range];
        found.fill(sector === -1 ? 0 : bytes[sector * 4096], start / 4096, ends[range] / 4096);
      }
      assert.deepEqual(found, expected);
    }),
    { seed: Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007), numRuns: 300 },
  );
});
