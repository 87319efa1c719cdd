/** Sources that come once: streams of a program's own, standard input, stream-optimized images. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, readdir, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CowherdError } from '../../src/errors.js';
import { createImage } from '../../src/image/graph/create.js';
import { convert } from '../../src/jobs/convert.js';
import type { ConvertOptions } from '../../src/jobs/convert-options.js';
import { needsTool, runOk, temporaryFolder } from '../support/tools.js';

const mib = 1024 * 1024;

const qemuImg = (words: readonly string[], cwd: string): Promise<string> =>
  runOk('qemu-img', words, { cwd });
const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

/** Bytes in pieces of the given lengths, over and over. */
async function* pieces(bytes: Uint8Array, lengths: readonly number[]): AsyncGenerator<Uint8Array> {
  for (let at = 0, index = 0; at < bytes.length; index++) {
    const length = lengths[index % lengths.length];
    yield await Promise.resolve(bytes.subarray(at, at + length));
    at += length;
  }
}

const formatOptions: readonly Pick<ConvertOptions, 'to' | 'options' | 'compress'>[] = [
  { to: 'raw' },
  { to: 'qcow2' },
  { to: 'qcow2', compress: true },
  { to: 'qcow2', options: { clusterSize: 4096 } },
  { to: 'qcow2', options: { extendedL2: true } },
  { to: 'qcow2', options: { clusterSize: 2 * mib }, compress: true },
  { to: 'qcow2', options: { preallocation: 'metadata' } },
  { to: 'vhdx' },
];

test(`a disk comes through as it is, in whatever pieces (seed ${seed})`, async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const runs = fc.array(
    fc.record({
      length: fc.oneof(fc.integer({ min: 1, max: 700_000 }), fc.constantFrom(512, 65536, mib)),
      isZero: fc.boolean(),
    }),
    { maxLength: 12 },
  );
  const lengths = fc.array(fc.integer({ min: 0, max: 300_000 }), { minLength: 1, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(runs, lengths, fc.constantFrom(...formatOptions), async (parts, cut, how) => {
      const disk = Buffer.concat(
        parts.map(({ length, isZero }) => (isZero ? Buffer.alloc(length) : randomBytes(length))),
      );
      await writeFile(path.join(folder, 'disk.raw'), disk);
      const target = path.join(folder, 'target');
      const steps = cut.some((length) => length > 0) ? cut : [1000];
      await convert(pieces(disk, steps), target, { from: 'raw', ...how });
      const { to = 'raw' } = how;
      await qemuImg(['compare', '-f', to, '-F', 'raw', target, 'disk.raw'], folder);
      const stdout = await qemuImg(['info', '--output=json', '-f', to, target], folder);
      const { 'virtual-size': size } = JSON.parse(stdout) as { 'virtual-size': number };
      if (to !== 'vhdx') assert.equal(size, Math.ceil(disk.length / 512) * 512);
      if (to === 'qcow2') await qemuImg(['check', '-f', to, target], folder);
    }),
    { seed, numRuns: 25 },
  );
});

test('an image made of a stream lies as one made of a file', async (t) => {
  const folder = await temporaryFolder(t);
  const disk = Buffer.alloc(24 * mib);
  for (const at of [0, 5, 6, 20]) randomBytes(mib).copy(disk, at * mib);
  const file = (name: string): string => path.join(folder, name);
  await writeFile(file('disk.raw'), disk);
  await convert(file('disk.raw'), file('of-file'), { to: 'qcow2' });
  await convert(pieces(disk, [70_000]), file('of-stream'), { to: 'qcow2' });
  assert.ok((await readFile(file('of-stream'))).equals(await readFile(file('of-file'))));
});

test('a stream that fails, or is given up, leaves nothing', async (t) => {
  const folder = await temporaryFolder(t);
  const target = path.join(folder, 'target');
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield await Promise.resolve(Buffer.alloc(3 * mib, 1));
    throw Object.assign(new Error('gone'), { code: 'ECONNRESET' });
  };
  await assert.rejects(convert(failing(), target, { to: 'qcow2' }), {
    message: 'Could not read the stream: Connection reset by peer',
    code: 'ERR_COWHERD_IO',
  });
  const controller = new AbortController();
  const endless = async function* (): AsyncGenerator<Uint8Array> {
    for (let count = 0; ; count++) {
      if (count === 5) controller.abort();
      yield await Promise.resolve(Buffer.alloc(mib, 1));
    }
  };
  const { signal } = controller;
  await assert.rejects(
    convert(endless(), target, { from: 'raw', to: 'qcow2', signal }),
    (error: CowherdError) => error.code === 'ERR_COWHERD_ABORTED',
  );
  const texts = (async function* () {
    yield await Promise.resolve('text');
  })() as unknown as AsyncIterable<Uint8Array>;
  await assert.rejects(convert(texts, target), {
    message: 'Could not read the stream: its pieces are no bytes',
  });
  assert.deepEqual(await readdir(folder), []);
});

test('a target that is there takes no more than it has room for', async (t) => {
  const folder = await temporaryFolder(t);
  const target = path.join(folder, 'target');
  await createImage(target, { format: 'qcow2', size: 2 * mib });
  const convertBytes = (length: number): Promise<void> =>
    convert(pieces(Buffer.alloc(length, 1), [100_000]), target, {
      from: 'raw',
      ...{ to: 'qcow2', skipCreate: true },
    });
  await convertBytes(2 * mib);
  await assert.rejects(
    convertBytes(2 * mib + 1),
    /has more bytes than the 2097152 that the target/,
  );
});

test('digests of a stream are known when it has ended', async (t) => {
  const folder = await temporaryFolder(t);
  const disk = Buffer.alloc(mib + 100);
  disk.fill(3, 1000, 2000);
  const padded = Buffer.concat([disk, Buffer.alloc(412)]);
  const { createHash } = await import('node:crypto');
  const of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
  const results: unknown[] = [];
  for (const to of ['raw', 'qcow2', 'vdi']) {
    const target = path.join(folder, to);
    await convert(pieces(disk, [333]), target, {
      ...{ from: 'raw', to, checksum: { algorithm: 'sha256' } },
      onChecksum: (result) => results.push(result),
    });
    const wrong = convert(pieces(disk, [333]), path.join(folder, 'none'), {
      ...{ from: 'raw', to, checksum: { algorithm: 'sha256', expected: of(Buffer.alloc(1)) } },
    });
    await assert.rejects(wrong, { code: 'ERR_COWHERD_CHECKSUM' });
  }
  assert.deepEqual(results, Array(3).fill({ file: of(disk), content: of(padded) }));
  assert.deepEqual((await readdir(folder)).sort(), ['qcow2', 'raw', 'vdi']);
});

test('a stream-optimized image is read as it comes, whoever wrote it', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const disk = path.join(folder, 'disk.raw');
  const content = Buffer.alloc(9 * mib + 512 * 3);
  for (const [start, length] of [
    [0, 100],
    [65536 * 5, 65536 * 40],
    [9 * mib, 512 * 3],
  ]) {
    randomBytes(length).copy(content, start);
  }
  await writeFile(disk, content);
  const options = ['-O', 'vmdk', '-o', 'subformat=streamOptimized'];
  await qemuImg(['convert', ...options, disk, 'theirs.vmdk'], folder);
  await convert(disk, path.join(folder, 'ours.vmdk'), {
    ...{ to: 'vmdk', options: { subformat: 'streamOptimized' } },
  });
  await truncate(path.join(folder, 'theirs.vmdk'));
  await qemuImg(['convert', ...options, disk, 'theirs.vmdk'], folder);
  const before = process.env['TMPDIR'];
  // Nothing can be kept.
  process.env['TMPDIR'] = '/nowhere';
  try {
    for (const name of ['ours.vmdk', 'theirs.vmdk']) {
      const bytes = await readFile(path.join(folder, name));
      const target = path.join(folder, 'target');
      await convert(pieces(bytes, [513, 70_000]), target, { to: 'qcow2' });
      await qemuImg(['compare', '-f', 'qcow2', '-F', 'raw', target, disk], folder);
      for (const end of [600, 70_000, bytes.length - 300_000 - (bytes.length % 512) + 100]) {
        const cut = convert(pieces(bytes.subarray(0, end), [70_000]), path.join(folder, 'none'));
        await assert.rejects(cut, /'?the stream'?: the stream ends within/);
      }
    }
  } finally {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
  }
});

test('pieces may lie in memory that is filled again and again', async (t) => {
  const file = path.join(await temporaryFolder(t), 'out.raw');
  const content = randomBytes(3 * mib + 512);
  for (const length of [512, 65536, mib]) {
    const again = Buffer.alloc(length);
    const source = async function* (): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < content.length; at += length) {
        const count = content.copy(again, 0, at, at + length);
        yield await Promise.resolve(again.subarray(0, count));
      }
    };
    await convert(source(), file, { to: 'raw' });
    assert.ok((await readFile(file)).equals(content), `pieces of ${length}`);
  }
});
