/** Converting a real file system there and back, for every create option; the real tools judge. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { copyFile, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import type { CreateOptions } from '../../src/image/api/options.js';
import type { ImageInfo, Qcow2Info } from '../../src/image/api/reports.js';
import { convert } from '../../src/jobs/convert.js';
import type { ConvertOptions } from '../../src/jobs/convert-options.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { needsTool, projectFolder, run, runOk, temporaryFolder } from '../support/tools.js';

const cases: readonly { readonly name: string; readonly options: ConvertOptions }[] = [
  ...[512, 4096, 65536, 2097152].map((clusterSize) => created({ clusterSize })),
  ...[1, 2, 4, 8, 32, 64].map((refcountBits) => created({ refcountBits })),
  created({ compat: '0.10' }),
  created({ lazyRefcounts: true }),
  created({ extendedL2: true }),
  created({ preallocation: 'metadata' }),
  created({ preallocation: 'falloc' }),
  created({ preallocation: 'full' }),
  created({ dataFile: 'disk.data' }),
  created({ dataFile: 'disk.data', dataFileRaw: true }),
  ...(['zlib', 'zstd'] as const).flatMap((compressionType) =>
    [4096, 65536, 2097152].map((clusterSize) => ({
      name: `compressed ${compressionType}, clusters of ${clusterSize}`,
      options: { compress: true, options: { compressionType, clusterSize } },
    })),
  ),
  {
    name: 'compressed with one-bit counts',
    options: { compress: true, options: { refcountBits: 1 } },
  },
  { name: 'compressed, extended L2', options: { compress: true, options: { extendedL2: true } } },
  { name: 'nothing sparse', options: { sparseSize: 0 } },
  { name: 'four queues', options: { queues: 4 } },
  { name: 'one piece at a time', options: { parallel: 1 } },
];

/** The facts that only qcow2 images have. */
function specific({ formatSpecific }: ImageInfo): Qcow2Info {
  assert.equal(formatSpecific?.type, 'qcow2');
  return formatSpecific;
}

function created(options: CreateOptions): { name: string; options: ConvertOptions } {
  const name = Object.entries(options)
    .map(([key, value]) => `${key}=${String(value)}`)
    .join(' ');
  return { name, options: { options } };
}

/** A disk with a real file system that holds this project's sources. */
async function fileSystem(folder: string): Promise<string> {
  const disk = path.join(folder, 'disk.raw');
  await writeFile(disk, '');
  await runOk('truncate', ['-s', '48M', disk]);
  await runOk('mkfs.ext4', ['-q', '-F', '-d', path.join(projectFolder, 'src'), disk]);
  return disk;
}

test('an ext4 file system survives raw to qcow2 and back', async (t) => {
  if (!needsTool(t, 'qemu-img', 'mkfs.ext4', 'e2fsck')) return;
  const folder = await temporaryFolder(t);
  const source = await fileSystem(folder);
  const content = await readFile(source);
  for (const { name, options } of cases) {
    await t.test(name, async () => {
      const target = path.join(folder, 'disk.qcow2');
      const back = path.join(folder, 'back.raw');
      const dataFile = options.options?.dataFile;
      const inFolder =
        dataFile === undefined
          ? options
          : { options: { ...options.options, dataFile: path.join(folder, dataFile) } };
      await convert(source, target, { from: 'raw', to: 'qcow2', ...inFolder });
      await expectSound(target, source);
      await convert(target, back, { from: 'qcow2', to: 'raw' });
      assert.ok(content.equals(await readFile(back)), 'the disk came back changed');
      const fsck = await run('e2fsck', ['-fn', back]);
      assert.equal(fsck.code, 0, fsck.stdout + fsck.stderr);
    });
  }
});

async function expectSound(target: string, source: string): Promise<void> {
  const check = await run('qemu-img', ['check', '-f', 'qcow2', target]);
  assert.equal(check.code, 0, check.stdout + check.stderr);
  const compared = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', source, target]);
  assert.equal(compared.code, 0, compared.stdout + compared.stderr);
}

test('a target with lazy refcounts is never left to a repair', async (t) => {
  const folder = await temporaryFolder(t);
  const source = path.join(folder, 'disk.raw');
  await writeFile(source, Buffer.alloc(4 << 20, 7));
  const target = path.join(folder, 'disk.qcow2');
  const options = { lazyRefcounts: true };
  for (const skipCreate of [false, true]) {
    let looks = 0;
    const onProgress = (): void => {
      looks++;
      const features = readFileSync(target).subarray(72, 88);
      if (features.length > 0) assert.equal(features[7] & 1, 0, 'the dirty bit');
    };
    await convert(source, target, { from: 'raw', to: 'qcow2', options, skipCreate, onProgress });
    assert.ok(looks > 0);
    await using image = await openImage(target);
    assert.equal(specific(await image.info()).lazyRefcounts, true);
  }
});

test('several sources become one disk', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const first = path.join(folder, 'a.raw');
  const second = path.join(folder, 'b.raw');
  await writeFile(first, Buffer.alloc(1_000_448, 1));
  await writeFile(second, Buffer.alloc(512 * 5, 2));
  const target = path.join(folder, 'both.qcow2');
  await convert([first, second], target, { from: 'raw', to: 'qcow2', compress: true });
  const expected = path.join(folder, 'both.raw');
  await writeFile(expected, Buffer.concat([await readFile(first), await readFile(second)]));
  await expectSound(target, expected);
});

test('a target kept with skipCreate is overwritten whole, its old data included', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const source = path.join(folder, 'a.raw');
  const content = Buffer.alloc(1 << 20);
  content.fill(7, 100_000, 200_000);
  await writeFile(source, content);
  const target = path.join(folder, 'b.qcow2');
  await createImage(target, { format: 'qcow2', size: content.length });
  const image = await openImage(target);
  await image.write(Buffer.alloc(content.length, 9), 0);
  await image.close();
  await convert(source, target, { from: 'raw', to: 'qcow2', skipCreate: true });
  await expectSound(target, source);
});

test('a target with a backing file gets only what the source itself holds', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const inFolder = { cwd: folder };
  const qemuIo = (...commands: string[]): Promise<string> =>
    runOk('qemu-io', commands.flatMap((command) => ['-c', command]).concat('top.qcow2'), inFolder);
  await writeFile(path.join(folder, 'base.raw'), Buffer.alloc(2 << 20, 3));
  await runOk(
    'qemu-img',
    ['create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'top.qcow2'],
    inFolder,
  );
  await qemuIo('write -P 5 64k 64k', 'write -z 256k 128k');
  const target = path.join(folder, 'copy.qcow2');
  const options = { to: 'qcow2', backing: 'base.raw', backingFormat: 'raw' } as const;
  await convert(path.join(folder, 'top.qcow2'), target, options);
  const compared = await run('qemu-img', ['compare', 'top.qcow2', 'copy.qcow2'], inFolder);
  assert.equal(compared.code, 0, compared.stdout);
  const map = await runOk('qemu-img', ['map', '--output=json', 'copy.qcow2'], inFolder);
  const present = (JSON.parse(map) as { depth: number; length: number }[])
    .filter(({ depth }) => depth === 0)
    .reduce((sum, { length }) => sum + length, 0);
  assert.equal(present, 64 * 1024 + 128 * 1024);
});

async function expectNoTarget(
  t: TestContext,
  options: ConvertOptions,
  code: string,
): Promise<void> {
  const folder = await temporaryFolder(t);
  const source = path.join(folder, 'a.raw');
  await writeFile(source, Buffer.alloc(8 << 20, 1));
  const target = path.join(folder, 'b.qcow2');
  await assert.rejects(convert(source, target, { from: 'raw', to: 'qcow2', ...options }), { code });
  await assert.rejects(stat(target), { code: 'ENOENT' });
  assert.equal((await stat(source)).size, 8 << 20);
}

test('a cancelled conversion leaves no target', async (t) => {
  const controller = new AbortController();
  await expectNoTarget(
    t,
    {
      signal: controller.signal,
      parallel: 1,
      onProgress: () => {
        controller.abort();
      },
    },
    'ERR_COWHERD_ABORTED',
  );
});

test('a wrong option leaves no target', async (t) => {
  await expectNoTarget(t, { options: { clusterSize: 1000 } }, 'ERR_COWHERD_INVALID_ARGUMENT');
  await expectNoTarget(t, { targetIsZero: true }, 'ERR_COWHERD_INVALID_ARGUMENT');
});

test('a source is never its own target', async (t) => {
  const folder = await temporaryFolder(t);
  const source = path.join(folder, 'a.raw');
  await writeFile(source, 'precious');
  await assert.rejects(convert(source, source, { from: 'raw' }), {
    code: 'ERR_COWHERD_INVALID_ARGUMENT',
  });
  await copyFile(source, path.join(folder, 'b.raw'));
  assert.equal(await readFile(source, 'utf8'), 'precious');
});

test('zstd and zlib differ in the header, and progress ends at the whole', async (t) => {
  const folder = await temporaryFolder(t);
  const source = path.join(folder, 'a.raw');
  await writeFile(source, Buffer.alloc(3 << 20, 1));
  const target = path.join(folder, 'b.qcow2');
  let last = { doneBytes: 0, totalBytes: 0 };
  await convert(source, target, {
    from: 'raw',
    to: 'qcow2',
    compress: true,
    options: { compressionType: 'zstd' },
    onProgress: (progress) => {
      assert.ok(progress.doneBytes > last.doneBytes);
      last = progress;
    },
  });
  assert.deepEqual(last, { doneBytes: 3 << 20, totalBytes: 3 << 20 });
  await using image = await openImage(target, { readOnly: true });
  assert.equal(specific(await image.info()).compressionType, 'zstd');
});
