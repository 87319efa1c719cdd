/** VHDX images that are made and written here, judged by QEMU's tools. */
import assert from 'node:assert/strict';
import { open, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { CowherdError } from '../../../src/errors.js';
import type { CreateOptions } from '../../../src/image/api/options.js';
import { createImage, formatFile } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { convert } from '../../../src/jobs/convert.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { assertSame } from '../../support/both-tools.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';
import { contentByQemu, pattern, writeByQemu } from './referee.js';
import { changeSigned, logEntry, logWith, place, vhdxImage } from './vhdx-builder.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 8);
const kib = 1024;
const mib = 1024 * kib;
const gib = 1024 * mib;
const tib = 1024 * gib;

const optionSets: readonly CreateOptions[] = [
  {},
  { blockSize: '1M' },
  { blockSize: 600_000, blockStateZero: false },
  { blockSize: '4M', logSize: '2500k' },
  { blockSize: '1G' },
  { subformat: 'fixed' },
  { subformat: 'fixed', blockStateZero: false },
  { subformat: 'fixed', blockSize: '1M', blockStateZero: true },
  { subformat: 'dynamic', blockStateZero: true },
];

/** Options as qemu-img takes them. */
function asWords(options: CreateOptions): string[] {
  const names: Readonly<Record<string, string>> = {
    blockSize: 'block_size',
    logSize: 'log_size',
    subformat: 'subformat',
    blockStateZero: 'block_state_zero',
  };
  const text = (value: unknown): string =>
    typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
  const words = Object.entries(options).map(([key, value]) => `${names[key]}=${text(value)}`);
  return words.length === 0 ? [] : ['-o', words.join(',')];
}

interface Facts {
  readonly size: number;
  readonly blockSize: number;
}

async function factsByQemu(file: string): Promise<Facts> {
  const text = await runOk('qemu-img', ['info', '--output=json', '-f', 'vhdx', file]);
  const info = JSON.parse(text) as { 'virtual-size': number; 'cluster-size': number };
  return { size: info['virtual-size'], blockSize: info['cluster-size'] };
}

async function assertCheckedByQemu(file: string): Promise<void> {
  const { code, stdout, stderr } = await run('qemu-img', ['check', '-f', 'vhdx', file]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /No errors were found/);
}

const entriesOf = (bytes: Buffer, count: number): bigint[] => {
  const tableAt = Number(bytes.readBigUInt64LE(192 * kib + 32));
  return Array.from({ length: count }, (_, index) => bytes.readBigUInt64LE(tableAt + index * 8));
};

test('new images are as qemu-img makes them', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const [ours, theirs] = [path.join(folder, 'ours.vhdx'), path.join(folder, 'theirs.vhdx')];
  // The default size of a block changes with that of the disk.
  const steps = [gib, gib + 1, 100 * gib, 100 * gib + 1, 32 * tib, 32 * tib + 512, 64 * tib];
  for (const size of [0, 512, 10_000_001, ...steps]) {
    for (const options of optionSets) {
      const isDefault = Object.keys(options).length === 0;
      // Tables of an empty disk are long.
      if (!isDefault && (size === 0 || steps.includes(size))) continue;
      await createImage(ours, { format: 'vhdx', size, ...options });
      const words = ['create', '-q', '-f', 'vhdx', ...asWords(options), theirs, String(size)];
      await runOk('qemu-img', words);
      const what = `${size} ${JSON.stringify(options)}`;
      assert.deepEqual(await factsByQemu(ours), await factsByQemu(theirs), what);
      await assertCheckedByQemu(ours);
      await using image = await openImage(ours, { format: 'vhdx', readOnly: true });
      assert.equal(image.size, Math.ceil(size / 512) * 512, what);
      if (size > 10_000_001) continue;
      const zeroes = Buffer.alloc(image.size);
      assert.ok((await contentByQemu(ours, 'vhdx')).equals(zeroes), what);
    }
  }
});

test('blocks begin as zeroes, as not there, or with their places', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  const made = async (options: CreateOptions): Promise<Buffer> => {
    await createImage(file, { format: 'vhdx', size: 5 * mib, blockSize: '2M', ...options });
    return await readFile(file);
  };
  assert.deepEqual(entriesOf(await made({}), 4), [2n, 2n, 2n, 0n]);
  assert.deepEqual(entriesOf(await made({ blockStateZero: false }), 4), [0n, 0n, 0n, 0n]);
  const fixed = await made({ subformat: 'fixed' });
  const [first, ...others] = entriesOf(fixed, 4);
  assert.deepEqual(others, [first + BigInt(2 * mib), first + BigInt(4 * mib), 0n]);
  assert.equal(first % BigInt(mib), 6n);
  assert.equal(fixed.length, Number(first) - 6 + 6 * mib);
});

test('converted images are the disk', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const [raw, file] = [path.join(folder, 'disk.raw'), path.join(folder, 'disk.vhdx')];
  for (const size of [512, 3 * mib, 20 * mib + 1536]) {
    const disk = Buffer.alloc(size);
    pattern(1, Math.min(size, 700_000)).copy(disk);
    pattern(2, 3000).copy(disk, Math.floor(size / 2));
    pattern(3, 512).copy(disk, size - 512);
    await writeFile(raw, disk);
    for (const options of optionSets) {
      await convert(raw, file, { from: 'raw', to: 'vhdx', options });
      await assertCheckedByQemu(file);
      await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'vhdx', raw, file]);
      assert.ok(
        (await contentByQemu(file, 'vhdx')).equals(disk),
        JSON.stringify({ size, options }),
      );
    }
  }
});

test('entries of bitmaps are skipped', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  // A chunk has 16 blocks.
  const size = 20 * gib;
  await createImage(file, { format: 'vhdx', size, blockSize: '256M' });
  const places = [15, 16, 17, 31, 32, 79].map((block) => (block + 0.5) * 256 * mib);
  {
    await using image = await openImage(file, { format: 'vhdx' });
    for (const [index, at] of places.entries()) await image.write(pattern(index, 5000), at - 2500);
    // From one chunk to the next.
    await image.write(pattern(99, 5000), 48 * 256 * mib - 2500);
  }
  const table = entriesOf(await beginOf(file, 8 * mib), 85);
  for (const bitmap of [16, 33, 50, 67, 84]) assert.equal(table[bitmap], 0n);
  assert.equal(table.filter((entry) => entry % BigInt(mib) === 6n).length, places.length + 2);
  await using image = await openImage(file, { format: 'vhdx', readOnly: true });
  for (const [index, at] of [...places, 48 * 256 * mib].entries()) {
    const salt = index === places.length ? 99 : index;
    const buffer = Buffer.alloc(5000);
    await image.read(buffer, at - 2500);
    assert.ok(buffer.equals(pattern(salt, 5000)), `at ${at}`);
    await assertReadByQemu(file, at - 2500, buffer);
  }
});

/** The begin of a file that is too long to be read whole. */
async function beginOf(file: string, length: number): Promise<Buffer> {
  const handle = await open(file);
  try {
    const { buffer } = await handle.read(Buffer.alloc(length), 0, length, 0);
    return buffer;
  } finally {
    await handle.close();
  }
}

/** Has qemu-img copy a part of the disk. */
async function assertReadByQemu(file: string, at: number, expected: Buffer): Promise<void> {
  const part = `json:${JSON.stringify({
    driver: 'raw',
    offset: Math.floor(at / 512) * 512,
    size: 12 * 512,
    file: { driver: 'vhdx', file: { driver: 'file', filename: file } },
  })}`;
  const raw = `${file}.part`;
  await runOk('qemu-img', ['convert', '-O', 'raw', part, raw]);
  const found = (await readFile(raw)).subarray(at % 512, (at % 512) + expected.length);
  assert.ok(found.equals(expected), `qemu-img at ${at}`);
}

type Step =
  | { readonly kind: 'write'; readonly at: number; readonly length: number; readonly fill: number }
  | { readonly kind: 'zero'; readonly at: number; readonly length: number; readonly unmap: boolean }
  | { readonly kind: 'flush' | 'reopen' | 'qemu' };

const position = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const lengths = fc.oneof(
  fc.integer({ min: 1, max: 5000 }),
  fc.constantFrom(512, 4096, 65_536, mib),
  fc.integer({ min: 1, max: 3_000_000 }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      at: position,
      length: lengths,
      fill: fc.integer({ min: 1, max: 255 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('zero' as const),
      at: position,
      length: lengths,
      unmap: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('flush', 'reopen', 'qemu') }),
  },
);

test('random requests, a model, and qemu-img', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  const scenario = fc.record({
    options: fc.constantFrom(...optionSets.filter(({ blockSize }) => blockSize !== '1G')),
    sectors: fc.integer({ min: 1, max: 20_000 }),
    isOfQemu: fc.boolean(),
    batches: fc.array(fc.array(step, { minLength: 1, maxLength: 4 }), {
      minLength: 1,
      maxLength: 6,
    }),
  });
  await fc.assert(
    fc.asyncProperty(scenario, async ({ options, sectors, isOfQemu, batches }) => {
      const size = sectors * 512;
      const model = Buffer.alloc(size);
      if (isOfQemu) {
        const words = ['create', '-q', '-f', 'vhdx', ...asWords(options), file, String(size)];
        await runOk('qemu-img', words);
      } else await createImage(file, { format: 'vhdx', size, ...options });
      let image = await openImage(file, { format: 'vhdx' });
      for (const batch of batches) {
        const under: Promise<void>[] = [];
        // Those of a batch are under way together, each in a part of the disk of its own.
        for (const [index, each] of batch.entries()) {
          if (each.kind === 'flush') under.push(image.flush());
          if (each.kind !== 'write' && each.kind !== 'zero') continue;
          const part = Math.floor(size / batch.length);
          const at = index * part + Math.floor(each.at * part);
          const end = Math.min(at + each.length, (index + 1) * part);
          if (end <= at) continue;
          if (each.kind === 'write') {
            model.fill(each.fill, at, end);
            under.push(image.write(Buffer.alloc(end - at, each.fill), at));
          } else {
            model.fill(0, at, end);
            under.push(image.writeZeroes(at, end - at, { unmap: each.unmap }));
          }
        }
        await Promise.all(under);
        if (batch.some(({ kind }) => kind === 'reopen' || kind === 'qemu')) {
          await image.close();
          if (batch.some(({ kind }) => kind === 'qemu')) {
            const at = Math.floor(sectors / 3) * 512;
            await writeByQemu(file, 'vhdx', [`write -P 77 ${at} 512`]);
            model.fill(77, at, at + 512);
          }
          image = await openImage(file, { format: 'vhdx' });
        }
        const found = Buffer.alloc(size);
        await image.read(found, 0);
        assert.ok(found.equals(model), 'read while open');
      }
      await image.close();
      await assertCheckedByQemu(file);
      assert.ok((await contentByQemu(file, 'vhdx')).equals(model), 'read by qemu-img');
    }),
    { seed, numRuns: runs },
  );
});

test('both headers are renewed before anything is written', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  await createImage(file, { format: 'vhdx', size: 3 * mib });
  const headers = async (): Promise<{ number: bigint; ids: string; log: string }[]> => {
    const bytes = await readFile(file);
    return [64 * kib, 128 * kib].map((at) => ({
      number: bytes.readBigUInt64LE(at + 8),
      ids: bytes.toString('hex', at + 16, at + 48),
      log: bytes.toString('hex', at + 48, at + 80),
    }));
  };
  const [one, other] = await headers();
  assert.equal(one.ids, other.ids);
  assert.equal(one.log, other.log);
  assert.ok(other.number > one.number);
  const image = await openImage(file, { format: 'vhdx' });
  assert.deepEqual(await headers(), [one, other], 'nothing is renewed by opening');
  await image.write(pattern(1, 1000), 0);
  const [newOne, newOther] = await headers();
  assert.deepEqual([newOne.number, newOther.number], [other.number + 1n, other.number + 2n]);
  assert.equal(newOne.ids, newOther.ids);
  assert.notEqual(newOne.ids.slice(0, 32), one.ids.slice(0, 32));
  assert.notEqual(newOne.ids.slice(32), one.ids.slice(32));
  assert.deepEqual([newOne.log, newOther.log], [one.log, one.log]);
  await image.write(pattern(2, 1000), 1000);
  await image.close();
  await assertCheckedByQemu(file);
  await (await openImage(file, { format: 'vhdx', readOnly: true })).close();
  assert.deepEqual(await headers(), [newOne, newOther], 'nothing is renewed by reading');
});

test('an older header that is damaged, and numbers that end, are written over', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  const damages: readonly ((file: Buffer) => void)[] = [
    (bytes) => bytes.fill(0xee, 64 * kib, 64 * kib + 100),
    (bytes) => bytes.fill(0xee, 128 * kib, 128 * kib + 100),
    ...[64 * kib, 128 * kib].map((at) =>
      changeSigned(at, 4096, (header) => header.writeBigUInt64LE(2n ** 64n - 1n, 8)),
    ),
  ];
  const disk = Buffer.alloc(3 * mib).fill(7, 512, 1024);
  for (const damage of damages) {
    await createImage(file, { format: 'vhdx', size: 3 * mib });
    const bytes = await readFile(file);
    damage(bytes);
    await writeFile(file, bytes);
    const image = await openImage(file, { format: 'vhdx' });
    await image.write(Buffer.alloc(512, 7), 512);
    await image.close();
    await assertCheckedByQemu(file);
    assert.ok((await contentByQemu(file, 'vhdx')).equals(disk));
    const whole = await readFile(file);
    const [one, other] = [64 * kib, 128 * kib].map((at) => whole.subarray(at, at + 4096));
    assert.deepEqual(
      [one.toString('latin1', 0, 4), other.toString('latin1', 0, 4)],
      ['head', 'head'],
    );
    const distance = one.readBigUInt64LE(8) - other.readBigUInt64LE(8);
    assert.ok(distance === 1n || distance === -1n);
    assert.ok(one.subarray(16, 80).equals(other.subarray(16, 80)));
  }
});

test('images that can only be read are left alone', async (t) => {
  const folder = await temporaryFolder(t);
  const refuses = async (file: string, why: string): Promise<void> => {
    const before = await readFile(file);
    await assert.rejects(openImage(file, { format: 'vhdx' }), (error) => {
      assert.ok(error instanceof CowherdError);
      assert.equal(error.code, 'ERR_COWHERD_UNSUPPORTED');
      assert.equal(error.message, `Could not open '${file}': ${why}`);
      return true;
    });
    assert.ok((await readFile(file)).equals(before), 'nothing is written');
  };
  const logId = '11111111-2222-3333-4444-555555555555';
  const blocks = [{ index: 0, state: 6, data: pattern(1, mib) }];
  const built = { size: 2 * mib, blockSize: mib, sectorSize: 512, blocks };
  const unclosed = path.join(folder, 'unclosed.vhdx');
  const writes = [{ offset: place.blocks, data: pattern(2, 4096) }];
  const log = logWith([[0, logEntry({ logId, sequenceNumber: 1, tail: 0, writes })]]);
  await writeFile(unclosed, vhdxImage({ ...built, logId, log }));
  const why = 'the VHDX image has a log that needs to be replayed, and can only be read';
  await refuses(unclosed, why);
  const upper = path.join(folder, 'upper.vhdx');
  await writeFile(path.join(folder, 'lower.vhdx'), vhdxImage(built));
  await writeFile(upper, vhdxImage({ ...built, parent: { relative_path: 'lower.vhdx' } }));
  await refuses(upper, 'differencing VHDX images can only be read');
});

test('an image of sectors of 4 KiB, whose log has nothing in it', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.vhdx');
  const logId = '11111111-2222-3333-4444-555555555555';
  const blocks = [{ index: 2, state: 6, data: pattern(1, mib) }];
  const built = { size: 5 * mib, blockSize: mib, sectorSize: 4096, blocks };
  await writeFile(file, vhdxImage({ ...built, logId, log: Buffer.alloc(mib) }));
  const disk = Buffer.alloc(5 * mib);
  pattern(1, mib).copy(disk, 2 * mib);
  pattern(2, 2 * mib).copy(disk, mib + 512);
  {
    await using image = await openImage(file, { format: 'vhdx' });
    await image.write(pattern(2, 2 * mib), mib + 512);
  }
  await using image = await openImage(file, { format: 'vhdx', readOnly: true });
  const found = Buffer.alloc(disk.length);
  await image.read(found, 0);
  assert.ok(found.equals(disk));
  // The header that was current says no more that the log counts.
  const noLog = (await readFile(file)).subarray(64 * kib + 48, 64 * kib + 64);
  assert.ok(noLog.every((byte) => byte === 0));
});

test('an image whose making was cut off is none', async () => {
  // Every write of it in turn is the last one.
  for (let kept = 0; ; kept++) {
    const file = new StoppingFile(kept);
    const making = formatFile(file, { format: 'vhdx', size: 5 * mib });
    if (
      await making.then(
        () => true,
        () => false,
      )
    ) {
      assert.ok(kept >= 6);
      return;
    }
    const begin = Buffer.alloc(8);
    await file.read(begin, 0);
    assert.notEqual(begin.toString('latin1'), 'vhdxfile', `after ${kept} writes`);
  }
});

/** A file that takes so many writes, and then fails. */
class StoppingFile extends MemoryFile {
  #left: number;

  constructor(writes: number) {
    super('memory');
    this.#left = writes;
  }

  override write(buffer: Uint8Array, offset: number): Promise<void> {
    if (this.#left === 0) return Promise.reject(new Error('no more'));
    this.#left -= 1;
    return super.write(buffer, offset);
  }
}

test("the line that announces a new image is qemu-img's", async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const options of optionSets) {
    await assertSame(['create', '-f', 'vhdx', ...asWords(options), 'x.vhdx', '10M'], folder);
  }
});

test('options that mean nothing are refused before a file is made', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.vhdx');
  const cases: readonly [size: number, options: CreateOptions][] = [
    [64 * tib + 512, {}],
    [mib, { blockSize: '3M' }],
    [mib, { logSize: 0 }],
    [mib, { logSize: '4G' }],
    [mib, { logSize: 4 * gib - 1 }],
    [mib, { subformat: 'differencing' }],
    [mib, { subformat: '' }],
  ];
  for (const [size, options] of cases) {
    const theirs = path.join(folder, 'theirs.vhdx');
    const words = ['create', '-f', 'vhdx', ...asWords(options), theirs, String(size)];
    const { code, stderr } = await run('qemu-img', words);
    assert.equal(code, 1);
    await assert.rejects(createImage(file, { format: 'vhdx', size, ...options }), (error) => {
      assert.ok(error instanceof CowherdError);
      assert.equal(error.code, 'ERR_COWHERD_INVALID_ARGUMENT');
      assert.equal(`qemu-img: ${theirs}: ${error.message}\n`, stderr);
      return true;
    });
    await assert.rejects(stat(file), { code: 'ENOENT' });
  }
});
