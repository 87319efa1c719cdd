/** The whole program where the addon does not load, or the kernel has no io_uring. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import zlib from 'node:zlib';
import { addon } from '../src/native/addon.js';
import { fixture, unpackFixtures } from './support/fixtures.js';
import {
  cowherdProgram,
  findTool,
  projectFolder,
  run,
  runOk,
  type RunResult,
} from './support/tools.js';

const images = ['compressed-zlib', 'compressed-zstd', 'extended-l2-compressed'].map((name) =>
  fixture(`${name}.qcow2`),
);

/** The one line that tells that the addon is missing; Node adds where to learn more. */
const oneWarning =
  /^\(node:\d+\) \[COWHERD_NO_ADDON\] Warning: the native addon is not available \(COWHERD_NO_ADDON is set\): .*\n\(Use .*\)\n$/;
const silence = /^$/;

type Runner = (words: readonly string[]) => Promise<RunResult>;

/** Runs the program with settings; it has to succeed, and to warn as expected. */
function runner(folder: string, env: Record<string, string>, warning: RegExp): Runner {
  return async (words) => {
    const result = await run(process.execPath, [cowherdProgram, ...words], { cwd: folder, env });
    const label = `${words.join(' ')}: ${result.stderr}`;
    assert.equal(result.code, 0, label);
    assert.match(result.stderr, warning, label);
    return result;
  };
}

async function sha256(...parts: readonly string[]): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path.join(...parts)))
    .digest('hex');
}

/** What has to work everywhere. */
async function everyday(folder: string, cowherd: Runner): Promise<void> {
  const disk = Buffer.alloc(3 * 1024 * 1024 + 512);
  for (let at = 0; at < 1024 * 1024; at += 4) disk.writeUInt32LE((at * 2654435761) >>> 0, at);
  disk.fill('cowherd', 2 * 1024 * 1024, 2 * 1024 * 1024 + 70_000);
  await writeFile(path.join(folder, 'disk.raw'), disk);
  const expected = await sha256(folder, 'disk.raw');

  await cowherd(['create', '-q', '-f', 'qcow2', 'new.qcow2', '1G']);
  for (const [words, name] of [
    [[], 'plain.qcow2'],
    [['-c'], 'zlib.qcow2'],
    [['-o', 'extended_l2=on,preallocation=full'], 'full.qcow2'],
    [['-o', 'cluster_size=512,preallocation=falloc'], 'small.qcow2'],
  ] as const) {
    await cowherd(['convert', ...words, '-f', 'raw', '-O', 'qcow2', 'disk.raw', name]);
    await cowherd(['check', '-q', name]);
    if (findTool('qemu-img') !== undefined) {
      await runOk('qemu-img', ['check', '-q', name], { cwd: folder });
    }
    await cowherd(['convert', '-f', 'qcow2', '-O', 'raw', name, 'back.raw']);
    assert.equal(await sha256(folder, 'back.raw'), expected, name);
  }
  await cowherd(['compare', '-q', '-f', 'raw', '-F', 'qcow2', 'disk.raw', 'zlib.qcow2']);
  const { stdout } = await cowherd(['info', '--output=json', 'plain.qcow2']);
  assert.equal((JSON.parse(stdout) as Record<string, unknown>)['virtual-size'], disk.byteLength);

  for (const { file, sha256: wanted } of images) {
    await cowherd(['convert', '-O', 'raw', file, 'out.raw']);
    assert.equal(await sha256(folder, 'out.raw'), wanted, file);
  }
  const extents = (await cowherd(['map', '--output=json', 'zlib.qcow2'])).stdout;
  assert.ok((JSON.parse(extents) as unknown[]).length > 0);
}

/** A program of a user: writes, reads back, and prints the codes of two failures. */
const library = `
import { compare, convert, createImage, openImage } from ${JSON.stringify(
  path.join(projectFolder, 'dist', 'bundle', 'index.js'),
)};
await convert('disk.raw', 'library.qcow2', { from: 'raw', to: 'qcow2' });
await convert('compressed-zstd.qcow2', 'library.raw', { to: 'raw' });
const image = await openImage('library.qcow2', { detectZeroes: 'on' });
const data = new Uint8Array(200000).fill(7);
const queue = await image.openQueue();
await Promise.all([image.write(data, 100), queue.write(data, 1000000)]);
await image.writeZeroes(65536, 65536, { unmap: true });
await queue.discard(1048576, 65536);
const back = new Uint8Array(65536);
await image.read(back, 65536);
await queue.close();
await image.close();
const closed = await openImage('library.qcow2', { readOnly: true });
const { corruptions, leaks } = await closed.check();
await closed.close();
const { identical } = await compare('disk.raw', 'library.qcow2');
const codes = [];
for (const attempt of [
  () => openImage('absent.qcow2'),
  () => openImage('disk.raw', { format: 'qcow2' }),
]) {
  await attempt().catch((error) => codes.push(error.code));
}
console.log(JSON.stringify({ zero: back.every((byte) => byte === 0), corruptions, leaks, identical, codes }));
`;

async function libraryWorks(
  folder: string,
  env: Record<string, string>,
  warning: RegExp,
): Promise<void> {
  await writeFile(path.join(folder, 'library.mjs'), library);
  const result = await run(process.execPath, ['library.mjs'], { cwd: folder, env });
  assert.equal(result.code, 0, result.stderr);
  assert.match(result.stderr, warning);
  assert.deepEqual(JSON.parse(result.stdout), {
    ...{ zero: true, corruptions: 0, leaks: 0, identical: false },
    codes: ['ERR_COWHERD_NOT_FOUND', 'ERR_COWHERD_INVALID_IMAGE'],
  });
  assert.equal(
    await sha256(folder, 'library.raw'),
    fixture('compressed-zstd.qcow2').sha256,
    'zstd through the library',
  );
}

test('without the addon everything works, with one warning', async (t) => {
  const folder = await unpackFixtures(t, images);
  const env = { COWHERD_NO_ADDON: '1', COWHERD_LOCKING: 'off' };
  await everyday(folder, runner(folder, env, oneWarning));
  await libraryWorks(folder, env, oneWarning);
});

const skip = addon === undefined ? 'needs the addon' : false;

test('without io_uring everything works, and nobody is told', { skip }, async (t) => {
  const folder = await unpackFixtures(t, images);
  const env = { COWHERD_NO_IO_URING: '1' };
  await everyday(folder, runner(folder, env, silence));
  await libraryWorks(folder, env, silence);
});

test('without the addon nothing that others may be writing is written to', async (t) => {
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const before = await readFile(path.join(folder, 'default.qcow2'));
  const refused = async (
    words: readonly string[],
    env: Record<string, string>,
  ): Promise<string> => {
    const { stderr, code } = await run(process.execPath, [cowherdProgram, ...words], {
      cwd: folder,
      env: { COWHERD_NO_ADDON: '1', NODE_NO_WARNINGS: '1', ...env },
    });
    assert.equal(code, 1, stderr);
    return stderr;
  };
  for (const words of [
    ['bench', '-w', '-c', '1', 'default.qcow2'],
    ['check', '-r', 'all', 'default.qcow2'],
    ['create', '-f', 'qcow2', 'default.qcow2', '1M'],
    ['convert', '-n', '-O', 'qcow2', 'default.qcow2', 'default.qcow2'],
  ]) {
    assert.match(await refused(words, {}), /^cowherd: [^\n]+\n$/, words.join(' '));
    assert.deepEqual(await readFile(path.join(folder, 'default.qcow2')), before);
  }
  const bench = ['bench', '-w', '-c', '1', 'default.qcow2'];
  assert.match(await refused(bench, {}), /COWHERD_NO_ADDON is set.*COWHERD_LOCKING=off/);
  const allowed = await run(process.execPath, [cowherdProgram, ...bench], {
    cwd: folder,
    env: { COWHERD_NO_ADDON: '1', COWHERD_LOCKING: 'off', NODE_NO_WARNINGS: '1' },
  });
  assert.equal(allowed.code, 0, allowed.stderr);
});

test('what cannot be had is refused by name', async (t) => {
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const cases = [
    ['COWHERD_NO_ADDON', /addon/, ['-c', '-o', 'compression_type=zstd', '-O', 'qcow2']],
    ['COWHERD_NO_ADDON', /io_uring/, ['--aio', 'io_uring', '-O', 'raw']],
    ['COWHERD_NO_IO_URING', /io_uring/, ['--aio', 'io_uring', '-O', 'raw']],
  ] as const;
  for (const [setting, reason, options] of cases) {
    // Newer versions of Node have a zstd of their own.
    if (options[0] === '-c' && 'zstdCompress' in zlib) continue;
    const words = ['convert', ...options, 'default.qcow2', 'out'];
    const { stderr, code } = await run(process.execPath, [cowherdProgram, ...words], {
      cwd: folder,
      env: { [setting]: '1', NODE_NO_WARNINGS: '1' },
    });
    assert.equal(code, 1, words.join(' '));
    assert.match(stderr, /^cowherd: [^\n]+\n$/);
    assert.match(stderr, reason);
  }
  assert.deepEqual(await readdir(folder), ['default.qcow2']);
});

test('starting up loads nothing but this package and what it depends on', async () => {
  const hooks = `import { writeSync } from 'node:fs';
    export async function load(url, context, next) {
      writeSync(2, url + '\\n');
      return next(url, context);
    }`;
  const hooksUrl = `data:text/javascript,${encodeURIComponent(hooks)}`;
  const register = `import { register } from 'node:module'; register(${JSON.stringify(hooksUrl)});`;
  const { stdout, stderr, code } = await run(process.execPath, [
    ...['--import', `data:text/javascript,${encodeURIComponent(register)}`],
    ...[cowherdProgram, '--version'],
  ]);
  assert.deepEqual([stdout.slice(0, 15), code], ['cowherd version', 0]);
  const loaded = stderr.trim().split('\n');
  const files = loaded.filter((url) => url.startsWith('file:'));
  const own = files.filter((url) => url.includes('/dist/bundle/'));
  const foreign = files.filter((url) => !url.includes('/dist/bundle/'));
  const packages = foreign.map((url) => /node_modules\/([^/]+)/.exec(url)?.[1]);
  assert.ok(packages.every((name) => ['async-mutex', 'fzstd', 'tslib'].includes(name ?? '')));
  assert.ok(own.length > 0 && own.length < 10, `${own.length} modules of this package`);
  // What is slow to load, or has no business in a program that only says its version.
  const heavy = ['node:worker_threads', 'node:child_process', 'node:http', 'node:net', 'node:test'];
  assert.deepEqual(
    loaded.filter((url) => heavy.includes(url)),
    [],
  );
});
