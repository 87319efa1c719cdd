/** `resize` gives disks the size, and says and refuses what qemu-img does: on twins, one for each program. */
import assert from 'node:assert/strict';
import { mkdir, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { smallDisk } from '../../support/small-disk.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

interface Twins {
  readonly mine: string;
  readonly theirs: string;
}

/** Makes the same image for both programs. */
async function twins(t: TestContext, make: (folder: string) => Promise<void>): Promise<Twins> {
  const folder = await temporaryFolder(t);
  const [mine, theirs] = ['mine', 'theirs'].map((name) => path.join(folder, name));
  for (const each of [mine, theirs]) {
    await mkdir(each);
    await make(each);
  }
  return { mine, theirs };
}

/** Runs the same words on each; what is said has to be the same. @returns the exit code */
async function both({ mine, theirs }: Twins, words: readonly string[]): Promise<number | null> {
  const expected = await runQemuImg(words, theirs);
  const actual = await runCowherd(words, mine);
  assert.deepEqual(actual, expected, words.join(' '));
  return actual.code;
}

const qemuImg = (folder: string, ...words: readonly string[]): Promise<string> =>
  runOk('qemu-img', words, { cwd: folder });

/** The images have to be the same: as they are stored, as they read, and in their length. */
async function assertAlike({ mine, theirs }: Twins, format: string, what: string): Promise<void> {
  const facts = async (folder: string): Promise<unknown> => {
    const info = JSON.parse(
      await qemuImg(folder, 'info', '-f', format, '--output=json', 'disk'),
    ) as Record<string, unknown>;
    const map = JSON.parse(await qemuImg(folder, 'map', '-f', format, '--output=json', 'disk')) as {
      readonly offset?: number;
    }[];
    return {
      size: info['virtual-size'],
      specific: info['format-specific'],
      extents: map.map((extent) => ({ ...extent, offset: undefined })),
    };
  };
  assert.deepEqual(await facts(mine), await facts(theirs), what);
  if (format === 'qcow2') await qemuImg(mine, 'check', '-q', '-f', format, 'disk');
  await qemuImg(mine, 'compare', '-s', '-f', format, '-F', format, 'disk', `${theirs}/disk`);
  const lengths = await Promise.all(
    [mine, theirs].map(async (each) => (await stat(path.join(each, 'disk'))).size),
  );
  // Refcount blocks that count nothing any more stay here.
  assert.ok(lengths[0] <= lengths[1] + 4 * 65_536, `${what}: ${lengths.join(' and ')} bytes`);
}

const images: Readonly<Record<string, readonly string[]>> = {
  'version 3': ['-f', 'qcow2'],
  'version 2': ['-f', 'qcow2', '-o', 'compat=0.10'],
  'small clusters': ['-f', 'qcow2', '-o', 'cluster_size=512'],
  'large clusters': ['-f', 'qcow2', '-o', 'cluster_size=2M'],
  subclusters: ['-f', 'qcow2', '-o', 'extended_l2=on'],
  'wide counts': ['-f', 'qcow2', '-o', 'refcount_bits=64'],
  'a data file': ['-f', 'qcow2', '-o', 'data_file=data'],
  raw: ['-f', 'raw'],
};
const sizes = [
  '9M',
  '+1M',
  '8M',
  '+512',
  '+65024',
  '120M',
  '100M',
  '-50M',
  '8M',
  '3M',
  '1M',
  '+0',
  '0',
  '12M',
];

for (const [name, words] of Object.entries(images)) {
  test(`sizes one after the other, ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const format = words[1];
    const made = await twins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', ...words, 'disk', '8M');
      const io = ['-c', 'write -P 7 1M 3M', '-c', 'write -P 9 7300k 100k', '-c', 'write -z 5M 1M'];
      await runOk('qemu-io', ['-f', format, ...io, 'disk'], { cwd: folder });
    });
    let value = 20;
    for (const size of sizes) {
      const code = await both(made, ['resize', '-f', format, '--shrink', 'disk', size]);
      await assertAlike(made, format, `${name}, ${size}`);
      if (code !== 0) continue;
      const { stdout } = await run('qemu-img', ['info', '--output=json', 'disk'], {
        cwd: made.mine,
      });
      const bytes = (JSON.parse(stdout) as { 'virtual-size': number })['virtual-size'];
      value += 1;
      for (const folder of [made.mine, made.theirs]) {
        const io = `write -P ${value} ${Math.max(0, bytes - 70_144)} 1024`;
        if (bytes > 70_144)
          await runOk('qemu-io', ['-f', format, '-c', io, 'disk'], { cwd: folder });
      }
    }
  });
}

test('disks above others, which do not show in what is added', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const options of [
    [],
    ['-o', 'compat=0.10'],
    ['-o', 'extended_l2=on'],
    ['-o', 'cluster_size=4k'],
  ]) {
    const made = await twins(t, async (folder) => {
      await writeFile(path.join(folder, 'base'), Buffer.alloc(6_000_128, 5));
      const below = ['-b', 'base', '-F', 'raw'];
      await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...options, ...below, 'disk', '2000384');
      await runOk('qemu-io', ['-c', 'write -P 7 1M 100k', 'disk'], { cwd: folder });
    });
    for (const size of ['3M', '5000192', '2M', '20M', '1000448', '6M']) {
      await both(made, ['resize', '--shrink', 'disk', size]);
      await assertAlike(made, 'qcow2', `${options.join(' ')} ${size}`);
    }
  }
});

test('snapshots keep what they have', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const compat of ['1.1', '0.10']) {
    const made = await twins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', `compat=${compat}`, 'disk', '64M');
      await runOk('qemu-io', ['-c', 'write -P 7 0 40M', 'disk'], { cwd: folder });
      await qemuImg(folder, 'snapshot', '-c', 'kept', 'disk');
      await runOk('qemu-io', ['-c', 'write -P 8 10M 10M', 'disk'], { cwd: folder });
    });
    for (const size of ['1G', '15M', '30M']) {
      await both(made, ['resize', '--shrink', 'disk', size]);
      await assertAlike(made, 'qcow2', `${compat} ${size}`);
    }
    for (const folder of [made.mine, made.theirs]) {
      await qemuImg(folder, 'convert', '-l', 'kept', '-O', 'raw', 'disk', 'kept');
    }
    await runOk('cmp', [path.join(made.mine, 'kept'), path.join(made.theirs, 'kept')]);
  }
});

test('space reserved for what is added to a raw disk', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const made = await twins(t, (folder) =>
    writeFile(path.join(folder, 'disk'), Buffer.alloc(65_536, 3)),
  );
  for (const mode of ['falloc', 'full', 'off']) {
    await both(made, ['resize', '-f', 'raw', `--preallocation=${mode}`, 'disk', '+3M']);
    await assertAlike(made, 'raw', mode);
    const [one, other] = await Promise.all(
      [made.mine, made.theirs].map((each) => stat(path.join(each, 'disk'))),
    );
    assert.equal(one.blocks, other.blocks, mode);
  }
});

test('what is refused, and how', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const made = await twins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'disk', '8M');
    await qemuImg(folder, 'create', '-q', '-f', 'vdi', 'disk.vdi', '8M');
  });
  for (const words of [
    ['disk', '4M'],
    ['disk', '-4M'],
    ['disk', '-100M'],
    ['disk', '0'],
    ['disk', 'x'],
    ['disk', '1000'],
    ['--preallocation=full', 'disk', '8M'],
    ['--preallocation=odd', 'disk', '9M'],
    ['none', '9M'],
    ['disk.vdi', '9M'],
    ['disk', '16E'],
    ['-q', 'disk', '9M'],
  ]) {
    await both(made, ['resize', ...words]);
  }
  const { code, stderr } = await runCowherd(['resize', 'disk'], made.mine);
  assert.equal(code, 1);
  assert.match(stderr, /Not enough arguments/);
});

test('a disk that is full leaves the size as it was', async (t) => {
  const folder = await smallDisk(t, 20 << 20);
  if (folder === undefined || !needsTool(t, 'qemu-img')) return;
  await writeFile(path.join(folder, 'raw'), Buffer.alloc(1 << 20, 1));
  for (const mode of ['falloc', 'full']) {
    const words = ['resize', '-f', 'raw', `--preallocation=${mode}`, 'raw', '100M'];
    const { code, stderr } = await runCowherd(words, folder);
    assert.equal(code, 1);
    assert.match(stderr, /^cowherd: [^\n]*No space left on device\n$/);
    assert.equal((await stat(path.join(folder, 'raw'))).size, 1 << 20, mode);
  }
});
