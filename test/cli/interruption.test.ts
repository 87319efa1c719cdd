/** Conversions that are cut off: killed at any moment, told to stop, or left without a reader. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, open, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { runCowherd } from '../support/both-tools.js';
import {
  needsTool,
  cowherdForShells,
  cowherdProgram,
  run,
  runOk,
  temporaryFolder,
} from '../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
/** Moments at which each kind of conversion is killed. */
const moments = Number(process.env['COWHERD_TEST_RUNS'] ?? 15);
const mib = 1024 * 1024;
const magic = Buffer.from('QFI\xfb', 'latin1');

/** Numbers from 0 to 1, the same ones for the same seed (mulberry32). */
function randomNumbers(from: number): () => number {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function sha256(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}

/** A disk whose every other half mebibyte holds text that compresses somewhat. */
async function makeDisk(file: string, size: number): Promise<void> {
  const random = randomNumbers(1);
  const words = Array.from({ length: 512 }, () => random().toString(36).slice(2));
  const text = Buffer.alloc(mib / 2);
  const disk = Buffer.alloc(size);
  for (let at = 0; at < size; at += mib) {
    for (let end = 0; end < text.length; end += 8) {
      text.write(words[Math.floor(random() * words.length)].slice(0, 8).padEnd(8), end, 'latin1');
    }
    text.copy(disk, at);
  }
  await writeFile(file, disk);
}

/** A conversion that reports its progress. */
interface Conversion {
  readonly child: ChildProcess;
  /** Resolves when the first part was copied, or the program has ended. */
  readonly working: Promise<void>;
  /** Resolves when everything was copied and the metadata are to follow, or at the end. */
  readonly copied: Promise<void>;
  readonly ended: Promise<{ code: number | null; signal: string | null; stderr: string }>;
}

function convert(folder: string, words: readonly string[]): Conversion {
  const child = spawn(process.execPath, [cowherdProgram, 'convert', '--progress=fd:3', ...words], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = once(child, 'close').then((result) => {
    const [code, signal] = result as [number | null, string | null];
    return { code, signal, stderr };
  });
  const progress = child.stdio[3]!;
  const shows = (pattern: RegExp): Promise<void> =>
    new Promise((resolve) => {
      progress.on('data', (chunk: Buffer) => {
        if (pattern.test(chunk.toString())) resolve();
      });
      progress.on('end', resolve);
    });
  const working = shows(/"doneBytes":[1-9]/);
  const copied = shows(/"doneBytes":(\d+),"totalBytes":\1\D/);
  return { child, working, copied, ended };
}

/** One kind of conversion to be cut off. */
interface Kind {
  readonly name: string;
  words(random: () => number): readonly string[];
  /** Whether the target exists and is kept. */
  readonly kept?: boolean;
}

const pick = <Value>(random: () => number, values: readonly Value[]): Value =>
  values[Math.floor(random() * values.length)];

const kinds: readonly Kind[] = [
  {
    name: 'a new image',
    words: (random) => [
      ...['-o', `cluster_size=${pick(random, ['512', '4k', '64k'])}`],
      ...[
        '-o',
        pick(random, ['compat=0.10', 'compat=1.1', 'lazy_refcounts=on', 'preallocation=metadata']),
      ],
      ...['--queues', pick(random, ['1', '2'])],
    ],
  },
  {
    name: 'a new compressed image',
    words: (random) => [
      '-c',
      ...[
        '-o',
        pick(random, ['compression_type=zlib', 'compression_type=zstd', 'cluster_size=4k']),
      ],
    ],
  },
  {
    name: 'an existing image',
    words: (random) => ['-n', '-t', pick(random, ['unsafe', 'writeback', 'none'])],
    kept: true,
  },
];

for (const kind of kinds) {
  test(`killed at any moment: ${kind.name}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    t.diagnostic(`seed ${seed}`);
    const random = randomNumbers(seed);
    const folder = await temporaryFolder(t);
    const source = path.join(folder, 'disk.raw');
    const target = path.join(folder, 'out.qcow2');
    await makeDisk(source, 16 * mib);
    const before = await sha256(source);
    if (kind.kept === true) await makeExisting(folder);
    const common = ['-f', 'raw', '-O', 'qcow2', 'disk.raw', 'out.qcow2'];
    const results = new Map<string, number>();
    // How long it works, and how long of that it takes to write the metadata at the end.
    let workMs = 0;
    let endMs = 0;
    for (let moment = 0; moment <= moments; moment++) {
      if (kind.kept === true) await copyFile(path.join(folder, 'existing.qcow2'), target);
      else await rm(target, { force: true });
      const words = [...kind.words(random), ...common];
      const label = `seed ${seed}, moment ${moment}: ${words.join(' ')}`;
      const { child, copied, ended } = convert(folder, words);
      await changed(target, child);
      const changedAt = performance.now();
      if (moment % 2 === 0) await copied;
      const copiedAt = performance.now();
      if (moment === 0) {
        // The first one runs to its end, to tell how long that takes.
        await ended;
        workMs = performance.now() - changedAt;
        endMs = performance.now() - copiedAt;
      } else {
        await sleep(random() * (moment % 2 === 0 ? endMs : workMs));
      }
      child.kill('SIGKILL');
      const { code } = await ended;
      const left = await judge(target, label);
      if (code === 0) assert.equal(left, 'sound', label);
      if (kind.kept === true) assert.match(left, /^(sound|leaks)$/, label);
      const result = code === 0 ? 'finished' : left;
      results.set(result, (results.get(result) ?? 0) + 1);
    }
    t.diagnostic([...results].map(([result, count]) => `${result}: ${count}`).join(', '));
    assert.equal(await sha256(source), before);
    // What was left behind is in nobody's way.
    const again = convert(folder, [...kind.words(random), ...common]);
    assert.deepEqual(await again.ended, { code: 0, signal: null, stderr: '' });
    await runOk('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', source, target]);
  });
}

/** Resolves when a file appears, grows or is written to, or the program has ended. */
async function changed(file: string, child: ChildProcess): Promise<void> {
  const look = async (): Promise<string> => {
    const facts = await stat(file).catch(() => undefined);
    return `${facts?.size ?? 0} ${facts?.mtimeMs ?? 0}`;
  };
  const before = await look();
  while (child.exitCode === null && (await look()) === before) await sleep(1);
}

/** An image with other content than the disk, some of it to be overwritten, some to be freed. */
async function makeExisting(folder: string): Promise<void> {
  const other = Buffer.alloc(12 * mib, 'other');
  await writeFile(path.join(folder, 'other.raw'), other);
  for (const words of [
    ['convert', '-f', 'raw', '-O', 'qcow2', '-c', 'other.raw', 'existing.qcow2'],
    ['resize', '-q', '-f', 'qcow2', 'existing.qcow2', '16M'],
  ]) {
    await runOk('qemu-img', words, { cwd: folder });
  }
}

/** What a killed conversion left: nothing, no image yet, or an image without corruption. */
async function judge(target: string, label: string): Promise<string> {
  let start: Buffer;
  try {
    const file = await open(target);
    start = Buffer.alloc(4);
    await file.read(start, 0, 4, 0);
    await file.close();
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOENT', label);
    return 'no file';
  }
  if (!start.equals(magic)) return 'no image';
  const theirs = await run('qemu-img', ['check', '-f', 'qcow2', target]);
  assert.ok([0, 3].includes(theirs.code), `${label}: ${theirs.stdout}${theirs.stderr}`);
  const ours = await runCowherd(['check', '-f', 'qcow2', target], path.dirname(target));
  assert.equal(ours.code, theirs.code, `${label}: ${ours.stdout}${ours.stderr}`);
  return theirs.code === 0 ? 'sound' : 'leaks';
}

/** A folder with a disk, and a conversion that takes long whatever the machine. */
async function slowConversion(
  t: TestContext,
  words: readonly string[],
): Promise<Conversion & { folder: string; untouched: () => Promise<void> }> {
  const folder = await temporaryFolder(t);
  const source = path.join(folder, 'disk.raw');
  await makeDisk(source, 16 * mib);
  const before = await sha256(source);
  if (words.includes('-n')) {
    await runOk(process.execPath, [cowherdProgram, 'create', '-q', '-f', 'qcow2', 'out', '16M'], {
      cwd: folder,
    });
  }
  const conversion = convert(folder, ['-r', '2M', ...words, 'disk.raw', 'out']);
  t.after(() => conversion.child.kill('SIGKILL'));
  const untouched = async (): Promise<void> => {
    assert.equal(await sha256(source), before);
  };
  return { ...conversion, folder, untouched };
}

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  test(`${signal} ends a conversion with one line, and without a target`, async (t) => {
    const words = signal === 'SIGTERM' ? ['-c', '-O', 'qcow2'] : ['-O', 'qcow2'];
    const { child, working, ended, folder, untouched } = await slowConversion(t, words);
    await working;
    const asked = performance.now();
    child.kill(signal);
    const result = await ended;
    assert.equal(result.stderr, "cowherd: Conversion to 'out' was cancelled\n");
    assert.equal(result.code, code);
    assert.ok(performance.now() - asked < 3000, 'it ends at once');
    assert.deepEqual(await readdir(folder), ['disk.raw']);
    await untouched();
  });
}

test('an existing target stays, and is sound', async (t) => {
  const { child, working, ended, folder, untouched } = await slowConversion(t, [
    ...['-n', '-O', 'qcow2'],
  ]);
  await working;
  child.kill('SIGINT');
  const { code, stderr } = await ended;
  assert.deepEqual([code, stderr], [130, "cowherd: Conversion to 'out' was cancelled\n"]);
  const checked = await run(process.execPath, [cowherdProgram, 'check', '-q', 'out'], {
    cwd: folder,
  });
  assert.deepEqual(checked, { stdout: '', stderr: '', code: 0 });
  await untouched();
});

test('making a preallocated image ends with one line, and without the image', async (t) => {
  const folder = await temporaryFolder(t);
  const words = [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-o',
    'preallocation=full,data_file=data',
    'out',
    '4G',
  ];
  const child = spawn(process.execPath, [cowherdProgram, ...words], { cwd: folder });
  t.after(() => child.kill('SIGKILL'));
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = once(child, 'close');
  await changed(path.join(folder, 'data'), child);
  child.kill('SIGINT');
  const [code] = (await ended) as [number];
  assert.deepEqual([code, stderr], [130, "cowherd: Creation of 'out' was cancelled\n"]);
  assert.deepEqual(await readdir(folder), []);
});

test('asked before it has begun, it does not begin', async (t) => {
  const folder = await temporaryFolder(t);
  // Standard input that says nothing keeps it waiting.
  const child = spawn(process.execPath, [cowherdProgram, 'convert', '-O', 'qcow2', '-', 'out'], {
    cwd: folder,
    stdio: ['pipe', 'ignore', 'pipe'],
    env: { ...process.env, TMPDIR: folder },
  });
  t.after(() => child.kill('SIGKILL'));
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  // What begins as an image with tables is kept until all of it is there.
  child.stdin.write(Buffer.concat([Buffer.from([0x51, 0x46, 0x49, 0xfb]), Buffer.alloc(8192)]));
  while ((await readdir(folder)).length === 0) await sleep(10);
  child.kill('SIGTERM');
  const [code] = (await once(child, 'close')) as [number];
  assert.deepEqual([code, stderr], [143, "cowherd: Conversion to 'out' was cancelled\n"]);
  assert.deepEqual(await readdir(folder), []);
});

test('a reader that has seen enough ends the program quietly', async (t) => {
  if (!needsTool(t, 'bash', 'head')) return;
  const folder = await temporaryFolder(t);
  // Every other cluster of a small size: a map of many lines.
  const disk = Buffer.alloc(16 * mib);
  for (let at = 0; at < disk.length; at += 8192) disk.fill(1, at, at + 4096);
  await writeFile(path.join(folder, 'disk.raw'), disk);
  const cowherd = cowherdForShells;
  await runOk(
    'bash',
    ['-c', `${cowherd} convert -O qcow2 -o cluster_size=4k disk.raw disk.qcow2`],
    { cwd: folder },
  );
  for (const [words, reader, lines] of [
    ['map disk.qcow2', 'head -n 1', 1],
    ['map --output=json disk.qcow2', 'head -n 1', 1],
    ['convert -O raw disk.qcow2 -', 'head -c 1000 | tr -d "\\\\001\\\\000"', 0],
    ['convert -O raw - - < disk.raw', 'head -c 1000 | tr -d "\\\\001\\\\000"', 0],
    ['map disk.qcow2', 'true', 0],
  ] as const) {
    const script = `${cowherd} ${words} | { ${reader}; }; echo "\${PIPESTATUS[0]}"`;
    const { stdout, stderr } = await run('bash', ['-c', script], { cwd: folder });
    const printed = stdout.trimEnd().split('\n');
    assert.equal(stderr, '', words);
    assert.equal(printed.pop(), '141', words);
    assert.equal(printed.filter((line) => line !== '').length, lines, words);
  }
});
