/** `snapshot` does, says and refuses what qemu-img does: on twins, one for each program. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, run } from '../../support/tools.js';
import { type Twins, assertTwins, makeTwins, qemuImg, runBoth } from '../../support/twins.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 12);

const layouts: Readonly<Record<string, string>> = {
  'version 3': 'compat=1.1',
  'version 2': 'compat=0.10',
  'small clusters': 'cluster_size=512',
  'large clusters': 'cluster_size=2M',
  subclusters: 'extended_l2=on',
  'narrow counts': 'refcount_bits=2',
  'wide counts': 'refcount_bits=64',
  'late counts': 'lazy_refcounts=on',
  zstd: 'compression_type=zstd',
};

/** Where counts are narrow, what qemu-img could not do leaves counts that are too high, and fails what comes later. */
const drawnLayouts = Object.values(layouts).filter(
  (each) => !each.includes('2M') && each !== 'refcount_bits=2',
);

/** Runs commands of qemu-io on both, which have to end alike: some layouts refuse what others do. */
async function io({ mine, theirs }: Twins, ...commands: readonly string[]): Promise<void> {
  const words = ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), 'disk'];
  const [one, other] = await Promise.all(
    [mine, theirs].map((cwd) => run('qemu-io', words, { cwd })),
  );
  assert.equal(one.code, other.code, commands.join(', '));
}

/** Runs `snapshot`; what is said has to be the same, but for when. @returns the exit code */
async function snapshot(
  { mine, theirs }: Twins,
  ...words: readonly string[]
): Promise<number | null> {
  const given = ['snapshot', ...words, 'disk'];
  const expected = await runQemuImg(given, theirs);
  const actual = await runCowherd(given, mine);
  const timeless = (said: typeof actual): object => ({
    ...said,
    stdout: said.stdout.replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'then'),
  });
  assert.deepEqual(timeless(actual), timeless(expected), given.join(' '));
  return actual.code;
}

/** Every snapshot has to read the same in both, and the images to be in order. */
async function assertSame(made: Twins, what: string): Promise<void> {
  await assertTwins(made, [{ name: 'disk', format: 'qcow2', slackClusters: 4 }], what);
  const { snapshots = [] } = JSON.parse(
    await qemuImg(made.theirs, 'info', '--output=json', 'disk'),
  ) as { readonly snapshots?: readonly { readonly id: string }[] };
  for (const { id } of snapshots) {
    const contents = await Promise.all(
      [made.mine, made.theirs].map(async (folder) => {
        await qemuImg(folder, 'convert', '-l', `snapshot.id=${id}`, '-O', 'raw', 'disk', 'then');
        return readFile(path.join(folder, 'then'));
      }),
    );
    assert.ok(contents[0].equals(contents[1]), `${what}: snapshot ${id}`);
  }
}

async function makeDisk(t: TestContext, options: string, size = '8M'): Promise<Twins> {
  return makeTwins(t, async (folder) => {
    await qemuImg(folder, 'create', '-q', '-f', 'qcow2', '-o', options, 'disk', size);
  });
}

for (const [name, options] of Object.entries(layouts)) {
  test(`snapshots one after the other, ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const made = await makeDisk(t, options);
    await io(made, 'write -P 1 0 3M', 'write -z 4M 1M', 'write -c -P 5 6M 2M');
    const steps: readonly (readonly string[])[] = [
      ['-c', 'one'],
      ['-c', 'two'],
      ['-l'],
      ['-a', 'one'],
      ['-d', 'one'],
      ['-a', 'two'],
      ['-c', 'two'],
      ['-d', 'two'],
      ['-l'],
      ['-d', '3'],
      ['-a', '3'],
      ['-d', 'two'],
      [],
    ];
    for (const [index, step] of steps.entries()) {
      await snapshot(made, ...step);
      // What the snapshots hold is read now and then.
      if (index % 4 === 3) await assertSame(made, `${name}, ${step.join(' ')}`);
      await io(
        made,
        `write -P ${index + 10} ${index * 200}k 500k`,
        'write -P 9 7M 64k',
        `discard ${index * 400}k 128k`,
      );
    }
    await assertSame(made, name);
  });
}

test('what is asked for at random', { timeout: 600_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  const name = fc.constantFrom('a', 'b', 'c', '1', '2');
  const step = fc.oneof(
    fc.tuple(fc.constant('snapshot'), fc.constantFrom('-c', '-c', '-a', '-d'), name),
    fc.tuple(
      fc.constant('io'),
      fc.constantFrom('write -P 7', 'write -z', 'discard', 'write -c -P 8'),
      fc.nat(120).map((at) => `${at * 64}k 128k`),
    ),
    fc.tuple(fc.constant('resize'), fc.constantFrom('8M', '12M', '100M'), fc.constant('')),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...drawnLayouts),
      fc.array(step, { minLength: 4, maxLength: 14 }),
      async (options, steps) => {
        const made = await makeDisk(t, options);
        await io(made, 'write -P 1 1M 2M');
        for (const [kind, action, argument] of steps) {
          if (kind === 'io') await io(made, `${action} ${argument}`);
          else if (kind === 'snapshot') await snapshot(made, action, argument);
          else await runBoth(made, ['resize', '-q', '--shrink', '-f', 'qcow2', 'disk', action]);
        }
        await assertSame(made, JSON.stringify(steps));
      },
    ),
    { seed, numRuns: runs, endOnFailure: true },
  );
});

test('what cannot be done is refused as qemu-img refuses it', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t, 'compat=0.10');
  for (const words of [
    ['-d', 'nothing'],
    ['-a', 'nothing'],
    ['-a', 'one', '-c', 'two'],
    ['-l', '-c', 'two'],
    ['-c'],
    ['disk'],
    ['--nothing'],
  ]) {
    assert.equal(await snapshot(made, ...words), 1, words.join(' '));
  }
  await snapshot(made, '-c', 'one');
  await runBoth(made, ['resize', 'disk', '9M']);
  const narrow = await makeDisk(t, 'refcount_bits=1');
  await io(narrow, 'write -P 1 0 64k');
  assert.equal(await snapshot(narrow, '-c', 'one'), 1);
  await qemuImg(narrow.mine, 'check', '-q', 'disk');
  const external = await makeDisk(t, 'data_file=data');
  for (const words of [['-c', 'one'], ['-l']]) await snapshot(external, ...words);
  const recorded = await makeDisk(t, 'compat=1.1');
  for (const folder of [recorded.mine, recorded.theirs]) {
    await qemuImg(folder, 'bitmap', '--add', 'disk', 'changes');
  }
  await snapshot(recorded, '-c', 'one');
  for (const name of ['one', 'nothing']) await snapshot(recorded, '-a', name);
  await snapshot(recorded, '-d', 'one');
  const raw = await makeTwins(t, (folder) =>
    writeFile(path.join(folder, 'disk'), Buffer.alloc(4096)),
  );
  for (const action of ['-c', '-a', '-d'])
    await runBoth(raw, ['snapshot', '-f', 'raw', action, 'one', 'disk']);
  await runBoth(raw, ['snapshot', '-f', 'raw', '-l', 'disk']);
  await runBoth(raw, ['snapshot', '-l', 'nowhere']);
  await runBoth(raw, ['snapshot', '-l']);
});

test('a bitmap of an image outlasts its snapshots', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const made = await makeDisk(t, 'compat=1.1');
  for (const folder of [made.mine, made.theirs]) {
    await qemuImg(folder, 'bitmap', '--add', 'disk', 'changes');
  }
  await io(made, 'write -P 1 1M 64k');
  await snapshot(made, '-c', 'one');
  await snapshot(made, '-d', 'one');
  const flags = async (folder: string): Promise<unknown> =>
    (
      JSON.parse(await qemuImg(folder, 'info', '--output=json', 'disk')) as {
        readonly 'format-specific': { readonly data: { readonly bitmaps: unknown } };
      }
    )['format-specific'].data.bitmaps;
  assert.deepEqual(await flags(made.mine), await flags(made.theirs));
});
