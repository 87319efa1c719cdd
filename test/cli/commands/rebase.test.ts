/** `rebase` leaves the images, and says and refuses, what qemu-img does: on twins, one for each program. */
import assert from 'node:assert/strict';
import { mkdir, rename, stat } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, run } from '../../support/tools.js';
import {
  type NamedImage,
  type Twins,
  assertTwins,
  makeTwins,
  qemuImg,
  qemuIo,
  runBoth,
} from '../../support/twins.js';

/** Zeroes are written as such here, as data there. */
const top: NamedImage = { name: 'top', format: 'qcow2', isStoredOtherwise: true };

const images: Readonly<Record<string, readonly string[]>> = {
  'version 3': [],
  'version 2': ['-o', 'compat=0.10'],
  'small clusters': ['-o', 'cluster_size=512'],
  'large clusters': ['-o', 'cluster_size=2M'],
  subclusters: ['-o', 'extended_l2=on'],
  'a data file': ['-o', 'data_file=data'],
};

for (const [name, words] of Object.entries(images)) {
  test(`from one image to another, ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const made = await makeTwins(t, async (folder) => {
      const create = ['create', '-q', '-f'];
      await qemuImg(folder, ...create, 'raw', 'old', '9000448');
      await qemuIo(folder, 'raw', 'old', 'write -P 1 0 3M', 'write -P 2 6M 2500k');
      for (const [image, size] of [
        ['short', '7M'],
        ['long', '20M'],
      ]) {
        await qemuImg(folder, ...create, 'qcow2', '-o', 'cluster_size=4k', image, size);
        const io = ['write -P 1 100k 2M', 'write -P 3 4M 300k', 'write -z 6M 512k'];
        await qemuIo(folder, 'qcow2', image, ...io);
      }
      await qemuIo(folder, 'qcow2', 'long', 'write -P 4 12M 1M');
      await qemuImg(folder, ...create, 'qcow2', '-b', 'old', '-F', 'raw', ...words, 'top', '14M');
      await qemuIo(folder, 'qcow2', 'top', 'write -P 5 2M 70k', 'write -z 7M 200k');
    });
    const contents = await contentOf(made);
    const check = async (what: string): Promise<void> => {
      await assertTwins(made, [top], what);
      assert.deepEqual(await contentOf(made), contents, what);
    };
    for (const [backing, format] of [
      ['long', 'qcow2'],
      ['short', 'qcow2'],
      ['./old', 'raw'],
      ['old', 'raw'],
    ]) {
      await runBoth(made, ['rebase', '-f', 'qcow2', '-b', backing, '-F', format, 'top']);
      await check(`${name}, onto ${backing}`);
    }
    await runBoth(made, ['rebase', '-b', '', 'top']);
    await check(`${name}, onto nothing`);
    await runBoth(made, ['rebase', '-b', 'long', '-F', 'qcow2', 'top']);
    await check(`${name}, from nothing`);
  });
}

/** Digests of what the images of both hold. */
async function contentOf({ mine, theirs }: Twins, format = 'qcow2'): Promise<readonly string[]> {
  const digests: string[] = [];
  for (const folder of [mine, theirs]) {
    await qemuImg(folder, 'convert', '-f', format, '-O', 'raw', 'top', 'seen');
    digests.push((await run('sha256sum', ['seen'], { cwd: folder })).stdout);
  }
  return digests;
}

test('QED images', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'old', '9000448');
    await qemuIo(folder, 'raw', 'old', 'write -P 1 0 3M', 'write -P 2 6M 2500k');
    await qemuImg(folder, 'create', '-q', '-f', 'qed', 'new', '7M');
    await qemuIo(folder, 'qed', 'new', 'write -P 1 100k 2M', 'write -P 3 4M 300k');
    await qemuImg(folder, 'create', '-q', '-f', 'qed', '-b', 'old', '-F', 'raw', 'top', '8389120');
    await qemuIo(folder, 'qed', 'top', 'write -P 5 2M 70k', 'write -z 7M 200k');
  });
  const overlay: NamedImage = { name: 'top', format: 'qed', isStoredOtherwise: true };
  const contents = await contentOf(made, 'qed');
  const long = `./${'x/'.repeat(400)}new`;
  for (const words of [
    ['-b', 'new', '-F', 'qed', 'top'],
    ['-u', '-b', long, '-F', 'qed', 'top'],
    ['-u', '-b', `./y/../${long}`, '-F', 'raw', 'top'],
    ['-u', '-b', 'new', '-F', 'qed', 'top'],
    ['-b', 'old', '-F', 'raw', 'top'],
    ['-b', '', 'top'],
  ]) {
    await runBoth(made, ['rebase', '-f', 'qed', ...words]);
    const named = await Promise.all(
      [made.mine, made.theirs].map((folder) =>
        qemuImg(folder, 'info', '-f', 'qed', '--output=json', 'top'),
      ),
    );
    const [mine, theirs] = named.map((text) => JSON.parse(text) as Record<string, unknown>);
    assert.equal(mine['backing-filename'], theirs['backing-filename']);
    assert.equal(mine['backing-filename-format'], theirs['backing-filename-format']);
    if (words.includes('-u')) continue;
    await assertTwins(made, [overlay], words.join(' '));
    assert.deepEqual(await contentOf(made, 'qed'), contents, words.join(' '));
  }
});

test('onto another image of the chain', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const [middleSize, upperSize] of [
    ['8M', '12M'],
    ['12M', '5M'],
    ['3M', '14M'],
  ]) {
    const made = await makeTwins(t, async (folder) => {
      const create = ['create', '-q', '-f', 'qcow2'];
      await qemuImg(folder, ...create, 'root', '10M');
      await qemuIo(folder, 'qcow2', 'root', 'write -P 1 0 10M');
      const small = ['-o', 'cluster_size=512'];
      const on = (below: string): string[] => ['-b', below, '-F', 'qcow2'];
      await qemuImg(folder, ...create, ...small, ...on('root'), 'middle', middleSize);
      await qemuIo(folder, 'qcow2', 'middle', 'write -P 2 1000k 3k', 'write -z 2M 5000');
      await qemuImg(folder, ...create, ...small, ...on('middle'), 'upper', upperSize);
      await qemuIo(folder, 'qcow2', 'upper', 'write -P 3 999k 2k', 'write -P 1 4M 10k');
      await qemuImg(folder, ...create, ...on('upper'), 'top', '12M');
      await qemuIo(folder, 'qcow2', 'top', 'write -P 4 3M 100k');
    });
    const contents = await contentOf(made);
    for (const [backing, format] of [
      ['upper', 'qcow2'],
      ['middle', 'qcow2'],
      ['root', 'qcow2'],
    ]) {
      await runBoth(made, ['rebase', '-b', backing, '-F', format, 'top']);
      const what = `middle ${middleSize}, upper ${upperSize}, onto ${backing}`;
      await assertTwins(made, [top], what);
      assert.deepEqual(await contentOf(made), contents, what);
    }
  }
});

test('compressed', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const options of [[], ['-o', 'extended_l2=on']]) {
    const made = await makeTwins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', '-f', 'raw', 'old', '8M');
      await qemuIo(folder, 'raw', 'old', 'write -P 1 0 5M', 'write -P 2 6M 1000k');
      const create = ['create', '-q', '-f', 'qcow2', ...options];
      await qemuImg(folder, ...create, '-b', 'old', '-F', 'raw', 'top', '8000000');
      await qemuIo(folder, 'qcow2', 'top', 'write -P 5 2M 64k');
    });
    const contents = await contentOf(made);
    const words = ['rebase', '-c', '-b', '', 'top'];
    assert.deepEqual(await runCowherd(words, made.mine), { stdout: '', stderr: '', code: 0 });
    await qemuImg(made.theirs, ...words);
    assert.deepEqual(await contentOf(made), contents);
    await qemuImg(made.mine, 'check', '-q', 'top');
    const [ours, theirs] = await Promise.all(
      [made.mine, made.theirs].map(async (folder) => (await stat(path.join(folder, 'top'))).size),
    );
    assert.ok(ours <= theirs + 65_536, `${ours} bytes, and ${theirs}`);
  }
});

test('a part of a cluster is there, and the rest is to be compressed', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'old', '1M');
    await qemuIo(folder, 'raw', 'old', 'write -P 1 0 1M');
    const create = ['create', '-q', '-f', 'qcow2', '-o', 'extended_l2=on'];
    await qemuImg(folder, ...create, '-b', 'old', '-F', 'raw', 'top');
    await qemuIo(folder, 'qcow2', 'top', 'write -P 5 70k 4k', 'write -z 200k 8k');
  });
  const contents = await contentOf(made);
  const { code, stderr } = await runCowherd(['rebase', '-c', '-b', '', 'top'], made.mine);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
  assert.deepEqual(await contentOf(made), contents);
  await qemuImg(made.mine, 'check', '-q', 'top');
});

test('the name alone', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  for (const options of [[], ['-o', 'compat=0.10'], ['-o', 'cluster_size=512']]) {
    const made = await makeTwins(t, async (folder) => {
      await qemuImg(folder, 'create', '-q', '-f', 'raw', 'old', '1M');
      const create = ['create', '-q', '-f', 'qcow2', ...options];
      await qemuImg(folder, ...create, '-b', 'old', '-F', 'raw', 'top', '2M');
      await qemuIo(folder, 'qcow2', 'top', 'write -P 5 100k 64k');
    });
    const long = 'n'.repeat(200);
    for (const [backing, format] of [
      ['gone', 'qcow2'],
      ['', undefined],
      [long.repeat(2), 'vmdk'],
      ['x', 'parallels'],
      [long.repeat(5), 'raw'],
      [`${long.repeat(5)}${long}`, 'raw'],
      [`${long.repeat(5)}${long}`, undefined],
      ['a/b/c', 'raw'],
      ['json:{"driver":"raw","file":{"driver":"file","filename":"old"}}', 'raw'],
      ['old', undefined],
      ['top', 'qcow2'],
      ['old', 'raw'],
    ]) {
      const named = format === undefined ? [] : ['-F', format];
      await runBoth(made, ['rebase', '-u', '-b', backing ?? '', ...named, 'top']);
      const facts = await Promise.all(
        [made.mine, made.theirs].map(async (folder) => {
          const { stdout } = await run('qemu-img', ['info', '-U', 'top'], { cwd: folder });
          return stdout.replace(/disk size.*/g, '');
        }),
      );
      assert.equal(facts[0], facts[1], `${options.join(' ')}: ${backing ?? ''}`);
    }
    await assertTwins(made, [top], options.join(' '));
    await runBoth(made, ['rebase', '-u', 'top']);
    await assertTwins(made, [top], 'no name');
  }
});

test('persistent bitmaps stay where nothing is written', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'old', '1M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'old', '-F', 'raw', 'top');
    await qemuImg(folder, 'bitmap', '--add', 'top', 'kept');
  });
  await runBoth(made, ['rebase', '-u', '-b', 'elsewhere', '-F', 'raw', 'top']);
  await runBoth(made, ['rebase', '-u', '-b', 'old', '-F', 'raw', 'top']);
  await assertTwins(made, [top], 'afterwards');
  assert.match(await qemuImg(made.mine, 'info', 'top'), /name: kept/);
});

test('names are relative to the image', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await mkdir(path.join(folder, 'below'));
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'old', '4M');
    await qemuIo(folder, 'raw', 'old', 'write -P 1 1M 1M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'old', '-F', 'raw', 'top');
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'below/other', '4M');
  });
  await rename(path.join(made.mine, 'top'), path.join(made.mine, 'below', 'top'));
  await rename(path.join(made.theirs, 'top'), path.join(made.theirs, 'below', 'top'));
  await runBoth(made, ['rebase', '-u', '-b', '../old', '-F', 'raw', 'below/top']);
  await runBoth(made, ['rebase', '-b', 'other', '-F', 'raw', 'below/top']);
  await assertTwins(
    { mine: path.join(made.mine, 'below'), theirs: path.join(made.theirs, 'below') },
    [top],
    'in a folder below',
  );
});

test('what is said and refused', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'old', '4M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'new', '4M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'old', '-F', 'raw', 'top');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'top', '-F', 'qcow2', 'above');
    const raw = ['-o', 'data_file=data,data_file_raw=on'];
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', ...raw, 'spread', '4M');
    await qemuImg(folder, 'create', '-q', '-f', 'vmdk', 'disk.vmdk', '4M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'old', '-F', 'raw', 'lost');
    await qemuImg(folder, 'rebase', '-u', '-b', 'gone', '-F', 'raw', 'lost');
  });
  for (const words of [
    [],
    ['top'],
    ['-b', 'new', 'top', 'old'],
    ['-b', 'new', 'none'],
    ['-b', 'none', '-F', 'raw', 'top'],
    ['-b', 'new', 'top'],
    ['-b', 'new', '-F', 'odd', 'top'],
    ['-b', 'top', '-F', 'qcow2', 'top'],
    ['-t', 'odd', '-b', 'new', 'top'],
    ['-T', 'odd', '-b', 'new', 'top'],
    ['-f', 'raw', '-b', 'new', '-F', 'qcow2', 'old'],
    ['-f', 'raw', '-c', '-b', 'new', '-F', 'qcow2', 'old'],
    ['-u', '-b', 'old', '-F', 'raw', 'disk.vmdk'],
    ['-u', '-b', 'old', '-F', 'raw', 'spread'],
    ['-b', '', 'spread'],
    ['-b', 'old', '-F', 'raw', 'lost'],
    ['-u', '-b', 'old', '-F', 'raw', 'lost'],
    ['-q', '-p', '-b', 'old', '-F', 'raw', 'top'],
    ['-U', '-t', 'none', '-T', 'unsafe', '-b', 'new', '-F', 'qcow2', 'top'],
    ['--image-opts', '-b', 'old', '-F', 'raw', 'driver=qcow2,file.filename=top'],
    ['-f', 'qcow2', '--image-opts', '-b', 'old', '-F', 'raw', 'driver=qcow2,file.filename=top'],
  ]) {
    await runBoth(made, ['rebase', ...words]);
  }
  const shown = await runCowherd(['rebase', '-p', '-b', 'new', '-F', 'qcow2', 'top'], made.mine);
  assert.match(shown.stdout, /^ {4}\(0\.00\/100%\)\r[^]* {4}\(100\.00\/100%\)\r\n$/);
  await qemuImg(made.theirs, 'rebase', '-b', 'new', '-F', 'qcow2', 'top');
  // There the first would be refused in other words, and the second make an image that nobody can open.
  for (const [backing, reason] of [
    ['above', /'top': Failed to get shared "write" lock\n/],
    ['old', /Could not open new backing file 'old': Image is not in qcow2 format\n/],
  ] as const) {
    const words = ['rebase', '-b', backing, '-F', 'qcow2', 'top'];
    const { code, stderr } = await runCowherd(words, made.mine);
    assert.equal(code, 1);
    assert.match(stderr, reason);
  }
  await assertTwins(made, [top, { name: 'lost', format: 'qcow2' }], 'afterwards');
});
