/**
 * A repair of an image of a mapping that a power cut ends, at any point and with any part of what was not
 * yet durable lost: another repair ends what the first began, and the disk is what it would have been.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { CheckResult } from '../../src/image/api/reports.js';
import { openImageOn } from '../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import { needsTool, runOk, temporaryFolder } from '../support/tools.js';
import { pattern, writeByQemu } from './vhdx/referee.js';
import {
  type BuiltImage,
  entryAt,
  logEntry,
  logWith,
  place,
  vhdxImage,
} from './vhdx/vhdx-builder.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 30);
const sectorSize = 512;
const mib = 1024 * 1024;

/** What a file was asked to do, in order. */
type Step =
  | { readonly kind: 'write'; readonly bytes: Uint8Array; readonly offset: number }
  | { readonly kind: 'length'; readonly length: number }
  | { readonly kind: 'barrier' };

/** A file in memory that remembers its changes and barriers. */
class RecordingFile extends MemoryFile {
  readonly steps: Step[] = [];

  override write(buffer: Uint8Array, offset: number): Promise<void> {
    this.steps.push({ kind: 'write', bytes: buffer.slice(), offset });
    return super.write(buffer, offset);
  }

  override writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    this.steps.push({ kind: 'write', bytes: new Uint8Array(length), offset });
    return super.writeZeroes(offset, length, unmap);
  }

  override truncate(length: number): Promise<void> {
    this.steps.push({ kind: 'length', length });
    return super.truncate(length);
  }

  override flush(): Promise<void> {
    this.steps.push({ kind: 'barrier' });
    return super.flush();
  }
}

/** What is left of a change that was not durable yet: of its sectors those whose turn it is in the list. */
type Remains = 'all' | 'nothing' | readonly boolean[];

const remains: fc.Arbitrary<Remains> = fc.oneof(
  fc.constantFrom<Remains>('all', 'nothing'),
  fc.array(fc.boolean(), { minLength: 1, maxLength: 16 }),
);

/**
 * What a disk may hold after a cut: all up to the last barrier, and something of what follows.
 *
 * @param left of each step, by its number
 */
function cutAfter(
  before: MemoryContent,
  steps: readonly Step[],
  left: readonly Remains[],
): MemoryContent {
  const content = before.clone();
  const durable = steps.findLastIndex(({ kind }) => kind === 'barrier');
  for (const [index, step] of steps.entries()) {
    const remaining = index < durable ? 'all' : left[index];
    if (step.kind === 'barrier' || remaining === 'nothing') continue;
    if (step.kind === 'length') {
      content.truncate(step.length);
      continue;
    }
    const { bytes, offset } = step;
    for (let sector = 0; sector * sectorSize < bytes.length; sector++) {
      if (remaining !== 'all' && !remaining[sector % remaining.length]) continue;
      const at = sector * sectorSize;
      content.write(bytes.subarray(at, at + sectorSize), offset + at);
    }
  }
  return content;
}

async function repair(file: MemoryFile, format: string): Promise<CheckResult> {
  await using image = await openImageOn(file, { format, forCheck: true });
  return await image.check({ repair: 'all' });
}

async function guestData(content: MemoryContent, format: string): Promise<Buffer> {
  const file = new MemoryFile('image', { content, readOnly: true });
  await using image = await openImageOn(file, { format, readOnly: true });
  const data = Buffer.alloc(image.size);
  await image.read(data, 0);
  return data;
}

/** Makes an image by the real tools, and damages it. */
async function damaged(
  t: TestContext,
  format: string,
  damage: (bytes: Buffer) => Buffer,
): Promise<Buffer> {
  const file = path.join(await temporaryFolder(t), 'disk');
  const options = format === 'qed' ? ['-o', 'cluster_size=4k,table_size=2'] : [];
  await runOk('qemu-img', ['create', '-q', '-f', format, ...options, file, '16M']);
  const writes = ['write -P 1 0 100k', 'write -P 2 4M 10k', 'write -P 3 9M 2M'];
  await writeByQemu(file, format, writes);
  return damage(await readFile(file));
}

const images: readonly { format: string; make: (t: TestContext) => Promise<Buffer> }[] = [
  {
    format: 'parallels',
    make: (t) =>
      damaged(t, 'parallels', (bytes) => {
        bytes.writeUInt32LE(0x746f6e59, 44);
        bytes.writeUInt32LE(0xffffff, 48);
        bytes.writeUInt32LE(bytes.readUInt32LE(64), 64 + 4);
        bytes.writeUInt32LE(bytes.readUInt32LE(64), 64 + 4 * 3);
        bytes.writeUInt32LE(1000, 64 + 4 * 2);
        return Buffer.concat([bytes, Buffer.alloc(3 * mib)]);
      }),
  },
  {
    format: 'qed',
    make: (t) =>
      damaged(t, 'qed', (bytes) => {
        bytes.writeBigUInt64LE(2n, 16);
        const table = Number(bytes.readBigUInt64LE(4096));
        for (const entry of [0, 3, 100, 900]) {
          bytes.writeBigUInt64LE(0x1000000000n, table + entry * 8);
        }
        bytes.writeBigUInt64LE(0x1000000000n, 4096 + 8 * 1000);
        return bytes;
      }),
  },
  {
    format: 'vhdx',
    make: () => {
      const image: BuiltImage = {
        size: 5 * mib,
        blockSize: mib,
        sectorSize: 512,
        blocks: [
          { index: 0, state: 6, data: pattern(1, mib) },
          { index: 3, state: 6, data: pattern(2, mib) },
        ],
      };
      const logId = '11111111-2222-3333-4444-555555555555';
      const length = place.blocks + 2 * mib;
      const sector = Buffer.alloc(4096);
      for (const [order, index] of [3, 0, 4].entries()) {
        sector.writeBigUInt64LE(BigInt(place.blocks + order * mib + 6), index * 8);
      }
      const entry = logEntry({
        logId,
        sequenceNumber: 1,
        tail: 0,
        writes: [
          { offset: place.table, zeroes: 8192 },
          { offset: place.table, data: sector },
          { offset: length + 4096, data: Buffer.alloc(4096, 0x55) },
          { offset: place.blocks + 8192, zeroes: 4096 },
        ],
        flushedLength: length,
        lastLength: length + mib,
      });
      const bytes = vhdxImage({ ...image, logId, log: logWith([[0, entry]]) });
      bytes.writeBigUInt64LE(0n, entryAt(image, 1));
      return Promise.resolve(bytes);
    },
  },
];

for (const { format, make } of images) {
  test(`a repair that is cut off can be repeated: ${format}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    t.diagnostic(`seed ${seed}`);
    const before = new MemoryContent();
    before.write(await make(t), 0);
    const whole = new RecordingFile('image', { content: before.clone() });
    const { corruptions, checkErrors, corruptionsFixed } = await repair(whole, format);
    assert.deepEqual([corruptions, checkErrors, corruptionsFixed > 0], [0, 0, true]);
    const data = await guestData(whole.content, format);
    const { steps } = whole;
    const cuts = fc.tuple(
      fc.nat(steps.length),
      fc.array(remains, { minLength: steps.length, maxLength: steps.length }),
    );
    await fc.assert(
      fc.asyncProperty(cuts, async ([count, left]) => {
        const content = cutAfter(before, steps.slice(0, count), left);
        // What waits in a log is read all along.
        if (format === 'vhdx') assert.ok((await guestData(content, format)).equals(data));
        const again = await repair(new MemoryFile('image', { content }), format);
        assert.deepEqual([again.corruptions, again.checkErrors, again.leaks], [0, 0, again.leaks]);
        assert.ok((await guestData(content, format)).equals(data));
        await using image = await openImageOn(new MemoryFile('image', { content }), {
          format,
          readOnly: true,
          forCheck: true,
        });
        const { corruptions: found, leaks } = await image.check();
        assert.deepEqual([found, format === 'qed' ? 0 : leaks], [0, 0]);
      }),
      { seed, numRuns: runs },
    );
  });
}
