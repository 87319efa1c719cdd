/** Machine state that an image keeps beyond its disk: by qemu-io and by us, with snapshots, and where there is none. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../../src/index.js';
import { runCowherd } from '../../support/both-tools.js';
import { assertAlike, bothRun, ioTwins } from '../../support/io-twins.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const layouts: Readonly<Record<string, readonly string[]>> = {
  'clusters of 64 KiB': [],
  'clusters of 512 bytes': ['-o', 'cluster_size=512'],
  subclusters: ['-o', 'extended_l2=on'],
  'version 2': ['-o', 'compat=0.10'],
};

for (const [name, options] of Object.entries(layouts)) {
  test(`machine state, ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const twins = await ioTwins(t, async (folder) => {
      await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, 'disk', '1M'], {
        cwd: folder,
      });
    });
    const both = async (words: readonly string[]): Promise<void> => {
      assert.equal((await runCowherd(words, twins.mine)).code, 0, words.join(' '));
      await runOk('qemu-img', words, { cwd: twins.theirs });
    };
    const lines = [
      ...['write -P 1 0 1M', 'read -b 0 64k', 'write -b -P 2 0 64k', 'write -b -P 3 200k 300k'],
      ...[
        'read -b -P 2 0 64k',
        'read -b -P 0 64k 136k',
        'read -b -P 3 200k 300k',
        'read -P 1 0 1M',
      ],
      ...[
        'write -b -P 4 1000 512',
        'write -b -P 4 512 1000',
        'write -b -c -P 2 0 512',
        'write -b -z 0 512',
      ],
      ...['write -b -f 0 512', 'read -b 1 512', 'read -b 1P 512', 'write -b -P 4 100M 512'],
    ];
    await bothRun(twins, lines, ['disk']);
    await assertAlike(twins, 'disk', 'qcow2', 'state');
    await both(['snapshot', '-c', 'then', 'disk']);
    await bothRun(
      twins,
      ['write -b -P 9 0 128k', 'write -P 7 0 64k', 'read -b -P 9 0 128k'],
      ['disk'],
    );
    await both(['snapshot', '-a', 'then', 'disk']);
    const checks = ['read -b -P 2 0 64k', 'read -b -P 0 64k 64k', 'read -P 1 0 1M'];
    await bothRun(twins, checks, ['disk']);
    await bothRun(twins, ['read -b 0 512', 'write -b 0 512'], ['-r', 'disk']);
    await assertAlike(twins, 'disk', 'qcow2', 'a snapshot');
    await both(['snapshot', '-d', 'then', 'disk']);
    await assertAlike(twins, 'disk', 'qcow2', 'no snapshot');
    const read = ['-c', 'read -b -P 2 0 64k', 'disk'];
    assert.doesNotMatch(await runOk('qemu-io', read, { cwd: twins.mine }), /failed/);
  });
}

test('a disk of another size shows no machine state, and keeps none', async (t) => {
  const folder = await temporaryFolder(t);
  const place = path.join(folder, 'disk');
  for (const size of ['1G', '512k']) {
    await runCowherd(['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', place, '1M'], folder);
    {
      await using image = await openImage(place);
      await image.vmState.write(Buffer.alloc(1 << 20, 1), 0);
      await image.write(Buffer.alloc(4096, 2), 0);
      await image.resize(size, { shrink: true });
      const bytes = Buffer.alloc(4096);
      await image.vmState.read(bytes, 0);
      assert.ok(bytes.equals(Buffer.alloc(4096)), size);
      for await (const { start, zero } of image.map()) assert.equal(zero, start > 0);
    }
    const { stdout, code } = await runCowherd(['check', '--output=json', place], folder);
    assert.equal(code, 0, stdout);
  }
});

test('images without a place for machine state refuse it', async (t) => {
  const folder = await temporaryFolder(t);
  const place = path.join(folder, 'disk');
  for (const words of [
    ['-f', 'raw'],
    ['-f', 'qcow2', '-o', 'data_file=data'],
  ]) {
    await runCowherd(['create', '-q', ...words, place, '1M'], folder);
    await using image = await openImage(place, { format: words[1] });
    const bytes = Buffer.alloc(512);
    const refused = { code: 'ERR_COWHERD_UNSUPPORTED' };
    await assert.rejects(image.vmState.write(bytes, 0), refused);
    await assert.rejects(image.vmState.read(bytes, 0), refused);
  }
  const qcow2 = path.join(folder, 'qcow2');
  await runCowherd(['create', '-q', '-f', 'qcow2', qcow2, '1M'], folder);
  await using image = await openImage(qcow2);
  for (const offset of [-1, 0.5, 2 ** 53]) {
    const refused = { code: 'ERR_COWHERD_OUT_OF_RANGE' };
    await assert.rejects(image.vmState.write(Buffer.alloc(512), offset), refused);
  }
  await assert.rejects(image.vmState.write(Buffer.alloc(512), 2 ** 52), {
    reason: 'File too large',
  });
});
