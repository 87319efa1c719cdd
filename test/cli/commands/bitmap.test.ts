/** `bitmap` does, says and refuses what qemu-img does: on twins, one for each program. */
import assert from 'node:assert/strict';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { bitmapsOf } from '../../support/stored-bitmaps.js';
import { needsTool, run, runOk } from '../../support/tools.js';
import { type Twins, assertTwins, makeTwins, qemuImg, runBoth } from '../../support/twins.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 12);

const layouts: Readonly<Record<string, string>> = {
  'version 3': 'compat=1.1',
  'small clusters': 'cluster_size=512',
  'large clusters': 'cluster_size=2M',
  subclusters: 'extended_l2=on',
  'narrow counts': 'refcount_bits=1',
  'late counts': 'lazy_refcounts=on',
};

function makeDisk(t: TestContext, options = 'compat=1.1', size = '8M'): Promise<Twins> {
  return makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', options, 'disk', size);
  });
}

/** Runs `bitmap`; what is said has to be the same. @returns the exit code */
async function bitmap({ mine, theirs }: Twins, ...words: string[]): Promise<number | null> {
  const given = ['bitmap', ...words];
  const expected = await runQemuImg(given, theirs);
  const actual = await runCowherd(given, mine);
  // The other program calls an image by a name of its making.
  const name = words.at(-2);
  const stderr = expected.stderr.replaceAll(/#block\d+/g, name ?? '');
  assert.deepEqual(actual, { ...expected, stderr }, given.join(' '));
  return actual.code;
}

/** Our program writes to its own, qemu-io to the other. */
async function write({ mine, theirs }: Twins, ...commands: string[]): Promise<void> {
  const words = ['-d', 'unmap', '-f', 'qcow2', ...commands.flatMap((each) => ['-c', each]), 'disk'];
  const { code, stderr } = await runCowherd(['io', ...words], mine);
  // Some layouts refuse what others do.
  assert.equal(code, (await run('qemu-io', words, { cwd: theirs })).code, stderr);
}

/** Both have the same bitmaps, which say the same. */
async function assertSame(made: Twins, what: string): Promise<void> {
  const stored = { isOverwritten: true, isStoredOtherwise: true };
  await assertTwins(made, [{ name: 'disk', format: 'qcow2', ...stored }], what);
  const [mine, theirs] = await Promise.all(
    [made.mine, made.theirs].map(
      async (folder) => bitmapsOf(await readFile(path.join(folder, 'disk'))).bitmaps,
    ),
  );
  assert.deepEqual(mine, theirs, what);
}

for (const [name, options] of Object.entries(layouts)) {
  test(`bitmaps one after the other, ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const made = await makeDisk(t, options);
    await bitmap(made, '--add', 'disk', 'one');
    await bitmap(made, '--add', '-g', '512', 'disk', 'two');
    await bitmap(made, '--add', '--disable', '-g', '4k', 'disk', 'three');
    await assertSame(made, `${name}, added`);
    await write(made, 'write 1M 70k', 'write -z 3M 5k', 'discard 5M 128k', 'write 8388096 512');
    await assertSame(made, `${name}, written`);
    await bitmap(made, '--merge', 'two', 'disk', 'three');
    await bitmap(made, '--merge', 'one', '--enable', 'disk', 'three');
    await bitmap(made, '--clear', '--disable', 'disk', 'two');
    await write(made, 'write 2M 1k', 'write -c 4M 2M');
    await assertSame(made, `${name}, merged and written`);
    await bitmap(made, '--remove', 'disk', 'one');
    await bitmap(made, '--add', '--merge', 'three', '--merge', 'two', 'disk', 'four');
    await assertSame(made, `${name}, removed`);
    for (const each of ['two', 'four', 'three']) await bitmap(made, '--remove', 'disk', each);
    await assertSame(made, `${name}, without`);
  });
}

test('what is refused, in the same words', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'disk', '8M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'other', '9M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', 'old', '8M');
    await qemuImg(folder, 'create', '-q', '-f', 'raw', 'raw', '8M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'large', '64T');
    await qemuImg(folder, 'bitmap', '--add', 'disk', 'one');
    await qemuImg(folder, 'bitmap', '--add', 'other', 'one');
  });
  const long = 'x'.repeat(1024);
  const cases: readonly (readonly string[])[] = [
    ['disk', 'one'],
    ['--add', 'disk'],
    ['--add', 'disk', 'one', 'two'],
    ['--add', 'disk', 'one'],
    ['--add', 'disk', ''],
    ['--add', 'disk', long],
    ['--add', '-g', '700', 'disk', 'two'],
    ['--add', '-g', '256', 'disk', 'two'],
    ['--add', '-g', '4G', 'disk', 'two'],
    ['--add', '-g', 'x', 'disk', 'two'],
    ['--add', '-g', '-1', 'disk', 'two'],
    ['--add', '-g', '512', 'large', 'two'],
    ['-g', '4k', '--remove', 'disk', 'one'],
    ['-F', 'qcow2', '--add', 'disk', 'two'],
    ['-b', 'other', '--add', 'disk', 'two'],
    ['--remove', 'disk', 'two'],
    ['--clear', 'disk', 'two'],
    ['--enable', 'disk', 'two'],
    ['--disable', 'disk', 'two'],
    ['--merge', 'one', 'disk', 'two'],
    ['--merge', 'two', 'disk', 'one'],
    ['--merge', 'one', '-b', 'other', '-F', 'qcow2', 'disk', 'one'],
    ['--merge', 'two', '-b', 'other', '-F', 'qcow2', 'disk', 'one'],
    ['--merge', 'one', '-b', 'absent', '-F', 'qcow2', 'disk', 'one'],
    ['--merge', 'one', '-b', 'raw', '-F', 'raw', 'disk', 'one'],
    ['--add', '--add', 'disk', 'three'],
    ['--remove', '--clear', 'disk', 'three'],
    ['--add', 'absent', 'one'],
    ['--add', '-f', 'nonsense', 'disk', 'one'],
    ['--add', 'old', 'one'],
    ['--add', '-f', 'raw', 'raw', 'one'],
    ['--remove', '-f', 'raw', 'raw', 'one'],
    ['--nonsense', 'disk', 'one'],
    ['--merge'],
  ];
  for (const words of cases) assert.equal(await bitmap(made, ...words), 1, words.join(' '));
  for (const name of ['disk', 'other']) await assertTwins(made, [{ name, format: 'qcow2' }], name);
});

test('a bitmap of another image is merged, whatever its granularity', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t);
  await bitmap(made, '--add', '-g', '4k', 'disk', 'one');
  await write(made, 'write 0 512', 'write 1M 100k', 'write 8387584 1k');
  for (const folder of [made.mine, made.theirs]) {
    await copyFile(path.join(folder, 'disk'), path.join(folder, 'other'));
  }
  await bitmap(made, '--remove', 'disk', 'one');
  for (const granularity of ['512', '64k', '2M']) {
    await bitmap(made, '--add', '-g', granularity, 'disk', granularity);
    await bitmap(made, '--merge', 'one', '-b', 'other', '-F', 'qcow2', 'disk', granularity);
    await assertSame(made, granularity);
  }
  await bitmap(made, '--merge', 'one', '-b', 'disk', '-F', 'qcow2', 'disk', '512');
});

test('a bitmap that was in use can only be removed, and is kept as it is', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t);
  await bitmap(made, '--add', 'disk', 'one');
  await bitmap(made, '--add', 'disk', 'two');
  for (const folder of [made.mine, made.theirs]) await markInUse(path.join(folder, 'disk'), 'one');
  await assertSame(made, 'marked');
  for (const words of [['--clear'], ['--enable'], ['--disable'], ['--merge', 'two']]) {
    assert.equal(await bitmap(made, ...words, 'disk', 'one'), 1);
  }
  assert.equal(await bitmap(made, '--merge', 'one', 'disk', 'two'), 1);
  assert.equal(await bitmap(made, '--add', 'disk', 'one'), 1);
  await write(made, 'write 1M 1M');
  await assertSame(made, 'written');
  const sizes = [made.mine, made.theirs].map(async (folder) =>
    (folder === made.mine ? runCowherd : runQemuImg)(['resize', 'disk', '9M'], folder),
  );
  const [actual, expected] = await Promise.all(sizes);
  assert.deepEqual(actual, expected);
  assert.equal(await bitmap(made, '--remove', 'disk', 'one'), 0);
  await assertSame(made, 'removed');
});

/** Sets the flag of a bitmap, as a program leaves it that was killed. */
async function markInUse(file: string, name: string): Promise<void> {
  const bytes = await readFile(file);
  const entry = Buffer.concat([Buffer.from([0, name.length, 0, 0, 0, 0]), Buffer.from(name)]);
  // Directories that nothing points at any more have it too.
  for (let at = -1; (at = bytes.indexOf(entry, at + 1)) !== -1;) bytes[at - 3] |= 1;
  await writeFile(file, bytes);
}

test('what is asked for at random', { timeout: 600_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  const name = fc.constantFrom('a', 'b', 'c');
  const step = fc.oneof(
    fc.tuple(
      fc.constantFrom('--add', '--add', '--remove', '--clear', '--enable', '--disable'),
      name,
    ),
    fc.tuple(name, name).map(([from, to]) => ['--merge', from, to]),
    fc
      .tuple(fc.constantFrom('512', '4k', '64k', '1M'), name)
      .map(([granularity, to]) => ['--add', '-g', granularity, to]),
    fc
      .tuple(
        fc.constantFrom('write', 'write', 'write -z', 'discard'),
        fc.nat(8_000),
        fc.integer({ min: 1, max: 4_000 }),
      )
      .map(([kind, at, length]) => ['io', `${kind} ${at * 512} ${length * 512}`]),
    fc.integer({ min: 12_000, max: 40_000 }).map((sectors) => ['resize', String(sectors * 512)]),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.values(layouts)),
      fc.array(step, { minLength: 4, maxLength: 14 }),
      async (options, steps) => {
        const made = await makeDisk(t, options);
        await bitmap(made, '--add', 'disk', 'a');
        for (const words of steps) {
          const last = words.at(-1)!;
          if (words[0] === 'io') await write(made, last);
          else if (words[0] === 'resize') {
            const given = ['resize', '-q', '--shrink', 'disk', last];
            const expected = await runQemuImg(given, made.theirs);
            assert.deepEqual(await runCowherd(given, made.mine), expected);
          } else await bitmap(made, ...words.slice(0, -1), 'disk', last);
        }
        await assertSame(made, `${options}, ${JSON.stringify(steps)}`);
      },
    ),
    { seed, numRuns: runs, endOnFailure: true },
  );
});

test('bitmaps are converted with their image, but for those that were in use', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', 'source', '8M');
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', 'old', '8M');
    await qemuImg(folder, 'bitmap', '--add', 'source', 'one');
    await copyFile(path.join(folder, 'source'), path.join(folder, 'single'));
    await qemuImg(folder, 'bitmap', '--add', '-g', '512', 'source', 'two');
    await qemuImg(folder, 'bitmap', '--add', 'source', 'three');
    const write = ['-c', 'write 1M 70k', '-c', 'write 7M 1k', 'source'];
    await runOk('qemu-io', ['-f', 'qcow2', ...write], { cwd: folder });
    await qemuImg(folder, 'bitmap', '--disable', 'source', 'two');
  });
  const both = async (...words: string[]): Promise<number | null> =>
    runBoth(made, ['convert', ...words]);
  assert.equal(await both('--bitmaps', '-O', 'qcow2', 'source', 'disk'), 0);
  await assertSame(made, 'converted');
  const refused: readonly (readonly string[])[] = [
    ['--bitmaps', '-O', 'raw', 'source', 'raw'],
    ['--bitmaps', '-O', 'qcow2', '-o', 'compat=0.10', 'source', 'v2'],
    ['--bitmaps', '-O', 'qcow2', 'old', 'v3'],
    ['--bitmaps', '-O', 'qcow2', 'source', 'source', 'long'],
    ['--skip-broken-bitmaps', '-O', 'qcow2', 'source', 'other'],
    ['--bitmaps', '-n', '-O', 'qcow2', 'single', 'disk'],
  ];
  for (const words of refused) assert.equal(await both(...words), 1);
  for (const folder of [made.mine, made.theirs]) {
    await markInUse(path.join(folder, 'source'), 'one');
    await markInUse(path.join(folder, 'source'), 'three');
  }
  assert.equal(await both('--bitmaps', '-O', 'qcow2', 'source', 'disk'), 1);
  const skipping = ['--bitmaps', '--skip-broken-bitmaps', '-O', 'qcow2', 'source', 'disk'];
  assert.equal(await both(...skipping), 0);
  await assertSame(made, 'but for those in use');
  for (const words of [['source'], ['--output=json', 'source']]) {
    assert.equal(await runBoth(made, ['measure', '-O', 'qcow2', ...words]), 0);
  }
});

test('what a commit and a rebase write is recorded', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeTwins(t, async (folder) => {
    const write = async (image: string, ...commands: string[]): Promise<void> => {
      const words = commands.flatMap((each) => ['-c', each]);
      await runOk('qemu-io', ['-f', 'qcow2', ...words, image], { cwd: folder });
    };
    for (const name of ['disk', 'other']) {
      await qemuImg(folder, 'create', '-q', '-f', 'qcow2', name, '8M');
    }
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-b', 'disk', '-F', 'qcow2', 'top');
    await write('top', 'write 1M 100k', 'write -z 4M 64k');
    await write('other', 'write 1M 64k', 'write 6M 64k');
    for (const name of ['disk', 'top']) await qemuImg(folder, 'bitmap', '--add', name, 'since');
    await copyFile(path.join(folder, 'top'), path.join(folder, 'moved'));
  });
  const dirty = async (folder: string, name: string): Promise<unknown> =>
    bitmapsOf(await readFile(path.join(folder, name))).bitmaps;
  assert.equal(await runBoth(made, ['rebase', '-b', 'other', '-F', 'qcow2', 'moved']), 0);
  assert.equal(await runBoth(made, ['commit', '-q', 'top']), 0);
  for (const name of ['disk', 'top', 'moved']) {
    assert.deepEqual(await dirty(made.mine, name), await dirty(made.theirs, name), name);
    await qemuImg(made.mine, 'check', '-q', name);
  }
});
