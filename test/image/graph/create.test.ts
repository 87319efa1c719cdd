/**
 * New images, on empty files and on devices that hold old bytes: QEMU finds nothing wrong with them,
 * and all of the disk reads as zeroes. What a device cannot do is refused, and it is left alone.
 */
import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { CreateOptions } from '../../../src/image/api/options.js';
import { createImage, formatFile } from '../../../src/image/graph/create.js';
import { openImageOn } from '../../../src/image/graph/open.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { diskFolder } from '../../storage/backends.js';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';
import { loopDevice } from '../../support/loop-device.js';
import { UsedDevice, usedByte } from '../../support/used-device.js';

const kib = 1024;
const mib = 1024 * kib;
const deviceBytes = 24 * mib;

/** Options that make other tables, and sizes that make more than one of each. */
const variants: readonly (readonly [size: number, options: CreateOptions])[] = [
  [0, {}],
  [mib, {}],
  [2 ** 40, {}],
  [mib, { compat: '0.10' }],
  [20 * mib, { clusterSize: 512 }],
  [mib, { clusterSize: 4096, refcountBits: 1 }],
  [mib, { clusterSize: '64k', refcountBits: 64, lazyRefcounts: true }],
  [mib, { clusterSize: '16k', extendedL2: true }],
  [3 * mib, { clusterSize: '2M' }],
  [5 * mib + 512, { preallocation: 'metadata' }],
  [5 * mib, { preallocation: 'metadata', compat: '0.10' }],
  [3 * mib, { preallocation: 'metadata', clusterSize: 512 }],
  [3 * mib, { preallocation: 'metadata', clusterSize: 512, refcountBits: 4 }],
  [3 * mib, { preallocation: 'metadata', clusterSize: '16k', extendedL2: true }],
  [3 * mib, { preallocation: 'falloc' }],
  [3 * mib, { preallocation: 'full', clusterSize: 4096 }],
];

function isReserved({ preallocation }: CreateOptions): boolean {
  return preallocation === 'falloc' || preallocation === 'full';
}

/** QEMU checks the image, and reads zeroes from end to end. */
async function judge(file: string, size: number): Promise<void> {
  const { code, stdout, stderr } = await run('qemu-img', ['check', '-f', 'qcow2', file]);
  assert.equal(code, 0, stdout + stderr);
  const step = Math.min(size, 16 * mib);
  const commands = step === 0 ? [] : ['-c', `read -P 0 0 ${step}`];
  if (size > step) commands.push('-c', `read -P 0 ${size - step} ${step}`);
  const read = await run('qemu-io', ['-r', '-f', 'qcow2', ...commands, file]);
  assert.equal(read.code, 0, read.stdout + read.stderr);
}

for (const [size, options] of variants) {
  const name = `${size} bytes ${JSON.stringify(options)}`;
  test(`a new disk reads as zeroes: ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const folder = await temporaryFolder(t);
    const image = path.join(folder, 'disk.qcow2');
    await t.test('a file', async () => {
      await writeFile(image, Buffer.alloc(mib, usedByte));
      await createImage(image, { format: 'qcow2', size, ...options });
      await judge(image, size);
    });
    await t.test('memory that was used', async () => {
      const device = UsedDevice.ofSize(deviceBytes);
      const formatting = formatFile(device, { format: 'qcow2', size, ...options });
      if (isReserved(options)) {
        await assert.rejects(formatting, /^CowherdError: 'device': Could not resize image: .*'f/);
        assert.deepEqual(bytesOf(device).subarray(0, mib), Buffer.alloc(mib, usedByte));
        return;
      }
      await formatting;
      await writeFile(image, bytesOf(device));
      await judge(image, size);
    });
    await t.test('a device that was used', async (t) => {
      const device = await loopDevice(t, folder, deviceBytes, usedByte);
      if (device === undefined) return;
      const creating = createImage(device, { format: 'qcow2', size, ...options });
      if (isReserved(options)) await assert.rejects(creating, { code: 'ERR_COWHERD_UNSUPPORTED' });
      else {
        await creating;
        await judge(device, size);
      }
    });
  });
}

function bytesOf({ content }: UsedDevice): Buffer {
  const bytes = Buffer.alloc(content.size);
  content.read(bytes, 0);
  return bytes;
}

test('a new image above an older one shows nothing of it, and takes writes', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  for (const preallocation of ['off', 'metadata'] as const) {
    const device = UsedDevice.ofSize(deviceBytes);
    const options = { format: 'qcow2', size: 4 * mib, preallocation } as const;
    await formatFile(device, options);
    const older = await openImageOn(device.openQueue(), { format: 'qcow2' });
    await older.write(new Uint8Array(4 * mib).fill(7), 0);
    await older.close();
    await formatFile(device, options);
    const newer = await openImageOn(device.openQueue(), { format: 'qcow2' });
    await newer.write(new Uint8Array(700).fill(9), mib + 100);
    await newer.close();
    const expected = Buffer.alloc(4 * mib);
    expected.fill(9, mib + 100, mib + 800);
    const file = path.join(folder, 'disk.qcow2');
    await writeFile(file, bytesOf(device));
    await runOk('qemu-img', ['check', file]);
    await runOk('qemu-img', ['convert', '-O', 'raw', file, `${file}.raw`]);
    assert.ok((await readFile(`${file}.raw`)).equals(expected), preallocation);
  }
});

test('external data on a device that was used reads as zeroes', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const image = path.join(folder, 'disk.qcow2');
  for (const options of [
    {},
    { preallocation: 'metadata' },
    { dataFileRaw: true },
    { preallocation: 'metadata', clusterSize: '16k', extendedL2: true },
  ] as const) {
    await t.test(JSON.stringify(options), async (t) => {
      const device = await loopDevice(t, folder, deviceBytes, usedByte);
      if (device === undefined) return;
      await createImage(image, { format: 'qcow2', size: mib, ...options, dataFile: device });
      await judge(image, mib);
      if (!('dataFileRaw' in options)) return;
      await runOk('qemu-io', ['-r', '-f', 'raw', '-c', `read -P 0 0 ${mib}`, device]);
    });
  }
});

test('a raw disk on a device keeps what is there, but for what would be taken for an image', async () => {
  const device = UsedDevice.ofSize(mib);
  await formatFile(device, { format: 'raw', size: 64 * kib });
  const expected = Buffer.alloc(mib, usedByte).fill(0, 0, 512);
  assert.deepEqual(bytesOf(device), expected);
  const tooLarge = formatFile(device, { format: 'raw', size: 2 * mib });
  await assert.rejects(tooLarge, { message: "'device': Cannot grow device files" });
  for (const preallocation of ['falloc', 'full'] as const) {
    await assert.rejects(formatFile(device, { format: 'raw', size: mib, preallocation }), {
      message: `'device': Unsupported preallocation mode '${preallocation}'`,
    });
  }
  const options = { format: 'qcow2', size: mib, preallocation: 'metadata' } as const;
  await assert.rejects(formatFile(device, options), {
    message: "'device': Could not resize image: Cannot grow device files",
  });
  assert.deepEqual(bytesOf(device), expected);
});

/** Files that must have the length and the blocks of qemu-img's. */
const layouts: readonly string[] = [
  '-f qcow2 x 0',
  '-f qcow2 x 64M',
  '-f qcow2 x 100T',
  '-f qcow2 -o compat=0.10 x 1M',
  '-f qcow2 -o cluster_size=512 x 1G',
  '-f qcow2 -o cluster_size=4k x 10G',
  '-f qcow2 -o extended_l2=on x 1G',
  '-f qcow2 -o preallocation=metadata x 1G',
  '-f qcow2 -o preallocation=metadata,refcount_bits=64 x 1G',
  '-f qcow2 -o preallocation=metadata,cluster_size=1M x 2100M',
  '-f qcow2 -o preallocation=falloc x 40M',
  '-f qcow2 -o preallocation=full x 10M',
  '-f qcow2 -o data_file=d x 10M',
  '-f qcow2 -o data_file=d,data_file_raw=on x 10M',
  '-f qcow2 -o data_file=d,preallocation=falloc x 10M',
  '-f raw x 0',
  '-f raw x 512',
  '-f raw x 2k',
  '-f raw x 4k',
  '-f raw x 1M',
  '-f raw -o preallocation=falloc x 1M',
  '-f raw -o preallocation=full x 1M',
];

test('new files are as long as those of QEMU, and take as many blocks', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const [theirs, ours] = [diskFolder(t), diskFolder(t)];
  for (const line of layouts) {
    const words = ['create', '-q', ...line.split(' ')];
    await runOk('qemu-img', words, { cwd: theirs });
    assert.equal((await runCowherd(words, ours)).code, 0);
    const files = line.includes('data_file') ? ['x', 'd'] : ['x'];
    for (const file of files) {
      assert.deepEqual(await extent(ours, file), await extent(theirs, file), `${line}: ${file}`);
    }
  }
});

async function extent(folder: string, file: string): Promise<object> {
  const { size, blocks } = await stat(path.join(folder, file));
  return { size, blocks };
}

test('what the host cannot reserve is written', async (t) => {
  const folder = diskFolder(t);
  process.env['COWHERD_NO_FALLOCATE'] = '1';
  t.after(() => {
    delete process.env['COWHERD_NO_FALLOCATE'];
  });
  for (const options of [
    { format: 'raw' },
    { format: 'qcow2' },
    { format: 'qcow2', dataFile: path.join(folder, 'data') },
  ] as const) {
    const file = path.join(folder, options.format);
    await createImage(file, { ...options, size: 3 * mib, preallocation: 'falloc' });
    const { blocks } = await stat('dataFile' in options ? options.dataFile : file);
    assert.ok(blocks * 512 >= 3 * mib, `${JSON.stringify(options)}: ${blocks} blocks`);
  }
  const memory = new MemoryFile('memory');
  await formatFile(memory, { format: 'raw', size: mib, preallocation: 'full' });
  assert.equal(await memory.size(), mib);
});
