/**
 * What is left to the backing file of a conversion's target, what is written, and what is zeroed:
 * random sources, backing files and targets, converted by both programs; the real qemu-img judges.
 */
import assert from 'node:assert/strict';
import { cp, mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { runCowherd, runQemuImg } from '../support/both-tools.js';
import { storedAs } from '../twins/comparable.js';
import { findTool, needsTool, run, runOk, temporaryFolder } from '../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 20);

const blockBytes = 64 * 1024;

interface Scenario {
  /** Sizes in blocks. */
  readonly size: number;
  readonly source: 'raw' | 'alone' | 'overlay';
  readonly sourceBelow: number;
  readonly targetBelow: number;
  readonly belowFormat: 'raw' | 'qcow2';
  /** What the source holds, by blocks. */
  readonly stored: readonly {
    readonly at: number;
    readonly blocks: number;
    readonly how: 'data' | 'zeroes' | 'zeroes as data';
  }[];
  readonly target: 'new' | 'existing' | 'existing overlay' | 'device';
  readonly backing: 'none' | '-B' | '-o';
  readonly compress: boolean;
  readonly copyZeroes: boolean;
  readonly compat: '0.10' | '1.1';
}

const blocks = fc.integer({ min: 1, max: 16 });
const scenario: fc.Arbitrary<Scenario> = fc
  .record({
    size: blocks,
    source: fc.constantFrom(
      'raw' as const,
      'alone' as const,
      'overlay' as const,
      'overlay' as const,
    ),
    sourceBelow: blocks,
    targetBelow: blocks,
    belowFormat: fc.constantFrom('raw' as const, 'qcow2' as const),
    stored: fc.array(
      fc.record({
        at: fc.nat(15),
        blocks: fc.integer({ min: 1, max: 4 }),
        how: fc.constantFrom('data' as const, 'zeroes' as const, 'zeroes as data' as const),
      }),
      { maxLength: 4 },
    ),
    target: fc.constantFrom(
      'new' as const,
      'existing' as const,
      'existing overlay' as const,
      'device' as const,
    ),
    backing: fc.constantFrom('none' as const, '-B' as const, '-B' as const, '-o' as const),
    compress: fc.boolean(),
    copyZeroes: fc.boolean(),
    compat: fc.constantFrom('0.10' as const, '1.1' as const),
  })
  .map((made) => ({
    ...made,
    // Options of a new image are refused for one that exists; and what is stored already cannot be
    // written compressed by qemu-img.
    backing: made.target.startsWith('existing') && made.backing === '-o' ? '-B' : made.backing,
    compress: made.compress && !made.target.startsWith('existing'),
  }));

/** Makes the files of a scenario in a folder; the target's old content is a byte that nobody else has. */
async function prepare(given: Scenario, folder: string): Promise<void> {
  const tool = (...words: readonly string[]) => runOk('qemu-img', words, { cwd: folder });
  const io = (format: string, file: string, commands: readonly string[]) =>
    commands.length === 0
      ? Promise.resolve('')
      : runOk('qemu-io', ['-f', format, ...commands.flatMap((text) => ['-c', text]), file], {
          cwd: folder,
        });
  const bytes = (count: number): string => String(count * blockBytes);
  const below = async (name: string, length: number, pattern: number): Promise<void> => {
    await tool('create', '-q', '-f', given.belowFormat, name, bytes(length));
    await io(given.belowFormat, name, [`write -q -P ${pattern} 0 ${bytes(length)}`]);
  };
  await below('old-base', given.sourceBelow, 0xaa);
  await below('new-base', given.targetBelow, 0xbb);
  const format = given.source === 'raw' ? 'raw' : 'qcow2';
  const chain = given.source === 'overlay' ? ['-b', 'old-base', '-F', given.belowFormat] : [];
  await tool('create', '-q', '-f', format, ...chain, 'source', bytes(given.size));
  const writes = given.stored.flatMap(({ at, blocks: count, how }, index) => {
    const length = Math.min(count, given.size - at);
    const what = how === 'zeroes' ? '-z' : `-P ${how === 'data' ? index + 1 : 0}`;
    return length > 0 ? [`write -q ${what} ${bytes(at)} ${bytes(length)}`] : [];
  });
  // qemu-img takes what is stored nowhere on both sides of the backing file's end to be all the backing
  // file's, though zeroes follow that end: something lies between.
  if (given.sourceBelow < given.size) {
    writes.push(`write -q -P 0xdd ${bytes(given.sourceBelow)} ${bytes(1)}`);
  }
  await io(format, 'source', writes);
  if (given.target.startsWith('existing')) {
    const targetChain =
      given.target === 'existing' ? [] : ['-b', 'new-base', '-F', given.belowFormat];
    await tool('create', '-q', '-f', 'qcow2', ...targetChain, 'target', bytes(given.size));
    const old = Math.ceil(given.size / 2);
    await io('qcow2', 'target', [`write -q -P 0xcc 0 ${bytes(old)}`]);
  }
}

function wordsOf(given: Scenario, target: string, folder: string): string[] {
  // An image on a device names its backing file by where devices lie, or by the whole path.
  const below = given.target === 'device' ? path.join(folder, 'new-base') : 'new-base';
  const options =
    given.backing === '-o' ? [`backing_file=${below},backing_fmt=${given.belowFormat}`] : [];
  const isNew = !given.target.startsWith('existing');
  if (isNew) options.push(`compat=${given.compat}`);
  return [
    'convert',
    ...(given.source === 'raw' ? ['-f', 'raw'] : []),
    ...['-O', 'qcow2'],
    ...(isNew ? ['-o', options.join(',')] : ['-n']),
    ...(given.backing === '-B' ? ['-B', below, '-F', given.belowFormat] : []),
    ...(given.compress ? ['-c'] : []),
    ...(given.copyZeroes ? ['-S', '0'] : []),
    'source',
    target,
  ];
}

test(`what a target leaves to its backing file is what qemu-img leaves (seed ${seed})`, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const root = await temporaryFolder(t);
  const devices = await twoDevices(root);
  t.after(() => devices.release());
  let turn = 0;
  await fc.assert(
    fc.asyncProperty(scenario, async (drawn) => {
      const given =
        drawn.target === 'device' && devices.paths === undefined
          ? { ...drawn, target: 'new' as const }
          : drawn;
      const folder = path.join(root, String(turn++));
      const theirs = path.join(folder, 'theirs');
      const ours = path.join(folder, 'ours');
      await mkdir(theirs, { recursive: true });
      await prepare(given, theirs);
      await cp(theirs, ours, { recursive: true });
      const [theirTarget, ourTarget] =
        given.target === 'device' ? devices.paths! : ['target', 'target'];
      if (given.target === 'device') await devices.wipe();
      const expected = await runQemuImg(wordsOf(given, theirTarget, theirs), theirs);
      assert.deepEqual(await runCowherd(wordsOf(given, ourTarget, ours), ours), expected);
      assert.equal(expected.code, 0, expected.stderr);
      const compared = await run(
        'qemu-img',
        ['compare', path.resolve(ours, ourTarget), path.resolve(theirs, theirTarget)],
        { cwd: root },
      );
      assert.equal(compared.stdout, 'Images are identical.\n', compared.stderr);
      // qemu-img copies what the host's blocks cut out of clusters as it comes, stores zeroes of version 2, which has
      // none, as data also where nothing would show, and with -S 0 none of those that it knows of there.
      const isAlike = given.source !== 'raw' && given.compat === '1.1' && !given.copyZeroes;
      if (given.target === 'new' && isAlike) {
        const [mine, its] = await Promise.all([mapOf(ours), mapOf(theirs)]);
        assert.deepEqual(storedAs(mine), storedAs(its));
      }
      const check = await run('qemu-img', ['check', '-f', 'qcow2', ourTarget], { cwd: ours });
      assert.equal(check.code, 0, check.stdout + check.stderr);
      await rm(folder, { recursive: true });
    }),
    { seed, numRuns: runs },
  );
});

function mapOf(folder: string): Promise<string> {
  return runOk('qemu-img', ['map', '--output=json', 'target'], { cwd: folder });
}

interface Devices {
  readonly paths: readonly [string, string] | undefined;
  wipe(): Promise<void>;
  release(): Promise<void>;
}

/** Two block devices for targets, where the tests may make them. */
async function twoDevices(folder: string): Promise<Devices> {
  const made: string[] = [];
  if (findTool('losetup') !== undefined && process.getuid?.() === 0) {
    for (const name of ['theirs.disk', 'ours.disk']) {
      await runOk('truncate', ['-s', '16M', name], { cwd: folder });
      const result = await run('losetup', ['-f', '--show', name], { cwd: folder });
      if (result.code === 0) made.push(result.stdout.trim());
    }
  }
  return {
    paths: made.length === 2 ? [made[0], made[1]] : undefined,
    async wipe() {
      for (const device of made) {
        await runOk('dd', ['if=/dev/zero', `of=${device}`, 'bs=1M', 'count=16', 'status=none']);
      }
    },
    async release() {
      for (const device of made) await run('losetup', ['-d', device]);
    },
  };
}
