/** What people write who have the package: programs that use it, and how they are built. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { RunResult } from './tools.js';

/** Opens, writes, pools, converts, compares and fails; what each gave is on standard output. */
const exercise = `
import { mkdtempSync } from 'node:fs';

export async function exercise(cowherd) {
  const folder = mkdtempSync('run-');
  const file = folder + '/disk.qcow2';
  await cowherd.createImage(file, { format: 'qcow2', size: '64M' });
  const image = await cowherd.openImage(file);
  await image.write(new Uint8Array(65536).fill(7), 1048576);
  const { corruptions, leaks } = await image.check();
  await image.close();
  const pool = await cowherd.openPool(file, { queues: 2 });
  const bytes = new Uint8Array(4096);
  await pool.read(bytes, 1048576);
  await pool.write(new Float64Array(512).fill(1), 0);
  await pool.close();
  await cowherd.convert(file, folder + '/back.raw', { from: 'qcow2', to: 'raw' });
  const { identical } = await cowherd.compare(file, folder + '/back.raw');
  const bench = await cowherd.openImage(file, { readOnly: true });
  const { requests } = await cowherd.bench(bench, { count: 8, depth: 2, bufferBytes: 512, queues: 2 });
  await bench.close();
  const failure = await cowherd.openImage(new URL('file:///absent')).catch((error) => error);
  const { code, syscall } = failure;
  const known = failure instanceof cowherd.CowherdError;
  const byte = bytes[4095];
  console.log(JSON.stringify({ corruptions, leaks, byte, identical, requests, code, syscall, known }));
}
`;

const exercised = `${JSON.stringify({
  ...{ corruptions: 0, leaks: 0, byte: 7, identical: true, requests: 8 },
  ...{ code: 'ERR_COWHERD_NOT_FOUND', syscall: 'open', known: true },
})}\n`;

/** The beginning of the warning that the addon is not there. */
export const noAddon =
  /^\(node:\d+\) \[COWHERD_NO_ADDON\] Warning: the native addon is not available \(/;

/** Lays down `program.mjs`, an ECMAScript module, and `program.cjs`, which requires the package. */
export async function writePrograms(folder: string): Promise<void> {
  const texts = {
    'exercise.mjs': exercise,
    'program.mjs': `import * as cowherd from 'cowherd';
      import { exercise } from './exercise.mjs';
      // Not awaited here: not every bundle may.
      void exercise(cowherd);`,
    'program.cjs': `const cowherd = require('cowherd');
      require('cowherd/package.json');
      void import('./exercise.mjs').then(({ exercise }) => exercise(cowherd));`,
    'same.cjs': `const { openImage } = require('cowherd');
      void import('cowherd').then((module) => console.log(module.openImage === openImage));`,
  };
  for (const [name, text] of Object.entries(texts)) await writeFile(path.join(folder, name), text);
}

/** Asserts that a program did all it should, with the addon or, told so by a warning, without. */
export function assertExercised(result: RunResult, how: 'addon' | 'portable'): void {
  const { stderr, ...rest } = result;
  assert.deepEqual(rest, { stdout: exercised, code: 0 }, stderr);
  if (how === 'addon') assert.equal(stderr, '');
  else assert.match(stderr, noAddon);
}

/** A test as people write it for Jest, which runs it in a realm of its own, by default in CommonJS. */
export const jestTest = `
const cowherd = require('cowherd');
const { storageConformance } = require('cowherd/conformance');
const { mkdtempSync } = require('node:fs');

for (const { name, run } of storageConformance({ create: () => undefined })) test.skip(name, run);

test('an image is written, read by a pool, converted and compared', async () => {
  const folder = mkdtempSync('run-');
  const file = folder + '/disk.qcow2';
  await cowherd.createImage(file, { format: 'qcow2', size: '64M' });
  const image = await cowherd.openImage(file);
  const memory = [Buffer.alloc(512, 7), new SharedArrayBuffer(512), new ArrayBuffer(512)];
  const views = [new Float32Array(512), new DataView(new ArrayBuffer(512))];
  for (const buffer of [...memory, ...views]) await image.write(buffer, 0);
  expect(image.stats().total.requests.write).toBe(5);
  for await (const extent of image.map()) expect(typeof extent.start).toBe('number');
  expect(await image.check()).toMatchObject({ corruptions: 0, leaks: 0 });
  await image.close();
  const pool = await cowherd.openPool(file, { queues: 2 });
  await pool.write(Buffer.alloc(4096, 7), 1048576);
  const bytes = new Uint8Array(new SharedArrayBuffer(4096));
  await pool.read(bytes, 1048576);
  expect(bytes[4095]).toBe(7);
  await pool.close();
  await cowherd.convert(file, folder + '/back.raw', { from: 'qcow2', to: 'raw' });
  expect(await cowherd.compare(file, folder + '/back.raw')).toMatchObject({ identical: true });
  const absent = { code: 'ERR_COWHERD_NOT_FOUND', errno: -2, syscall: 'open' };
  await expect(cowherd.openImage(new URL('file:///absent'))).rejects.toMatchObject(absent);
  await expect(cowherd.openImage('absent')).rejects.toThrow(cowherd.CowherdError);
  const signal = AbortSignal.abort();
  const aborted = cowherd.convert(file, folder + '/no.raw', { from: 'qcow2', to: 'raw', signal });
  await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
});
`;

/** Uses every exported function, and holds what they return to a type. */
const typedProgram = `
import { alignedBuffer, attachImage, bench, compare, convert } from 'cowherd';
import { createImage, openImage, openPool, CowherdError } from 'cowherd';
import type { ConvertOptions, Extent, Image, ImageHandle, StorageFile } from 'cowherd';
import { storageConformance } from 'cowherd/conformance';

export async function main(): Promise<void> {
  const options: ConvertOptions = { from: 'raw', to: 'qcow2', compress: true };
  await createImage('a.qcow2', { format: 'qcow2', size: '20G', clusterSize: 65536 });
  await convert(['a.raw', 'b.raw'], 'a.qcow2', {
    ...options,
    onProgress: ({ doneBytes, totalBytes }) => { const share: number = doneBytes / totalBytes; void share; },
  });
  const image: Image = await openImage('a.qcow2', { readOnly: true, cache: 'none', aio: 'threads' });
  const extents: Extent[] = [];
  for await (const extent of image.map({ offset: 0, length: image.size })) extents.push(extent);
  const queue = await image.openQueue();
  await queue.read(new Float64Array(64), 0);
  queue.createReadStream({ start: 512, end: 1023 }).pipe(image.createWriteStream({ start: 0 }));
  await queue[Symbol.asyncDispose]();
  const handle: ImageHandle = image.handle();
  await (await attachImage(handle)).read(alignedBuffer(512), 0);
  const { seconds }: { readonly seconds: number } = await bench(image, { count: 1, depth: 1, bufferBytes: 512 });
  await (await openPool('a.qcow2', { queues: 2 })).write(new ArrayBuffer(512), seconds);
  await image.close();
  const create = (content: Uint8Array): StorageFile => { throw new Error(String(content.length)); };
  for (const { name, run } of storageConformance({ create, resizing: false })) await run().catch(() => name);
  const { identical } = await compare('a.qcow2', 'a.raw');
  const same: boolean = identical;
  try {
    await openImage('a', { format: 'registered elsewhere' });
    await openImage('a', { filters: ['trace', { name: 'rate', bytesPerSecond: 1e6 }, { name: 'readahead', window: '4M' }] });
    // @ts-expect-error a rate has to be said
    await openImage('a', { filters: ['rate'] });
    // @ts-expect-error an option of another filter
    await openImage('a', { filters: [{ name: 'readahead', bytesPerSecond: 1e6 }] });
    // @ts-expect-error there is no such filter
    await openImage('a', { filters: ['rates'] });
    // @ts-expect-error what is no name of a format
    await openImage('a', { format: 5 });
    // @ts-expect-error what no image has given
    await attachImage({});
  } catch (error) {
    if (error instanceof CowherdError && error.code === 'ERR_COWHERD_NOT_FOUND') void same;
  }
}
`;

/** The same with what only Node's types or the DOM's know. */
const platformProgram = `
import { convert, openImage } from 'cowherd';

export async function main(): Promise<void> {
  const { signal } = new AbortController();
  await convert(new URL('file:///a.raw'), 'a.qcow2', { from: 'raw', to: 'qcow2', signal });
  await openImage(new URL('file:///a.qcow2'));
}
`;

const node = { types: ['node'] };
const dom = { lib: ['ES2022', 'DOM'] };

/**
 * Settings of TypeScript that people have: each kind of modules, with no types but the language's,
 * with Node's, and with the DOM's. All are strict, and look into declarations too.
 */
export const typeScriptModes: readonly {
  readonly name: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly extension: 'ts' | 'cts' | 'mts';
}[] = [
  { name: 'node10', options: { module: 'CommonJS', moduleResolution: 'Node10' }, extension: 'ts' },
  { name: 'node16 in CommonJS', options: { module: 'Node16' }, extension: 'cts' },
  { name: 'node16', options: { module: 'Node16' }, extension: 'mts' },
  { name: 'nodenext in CommonJS', options: { module: 'NodeNext' }, extension: 'cts' },
  { name: 'nodenext', options: { module: 'NodeNext' }, extension: 'ts' },
  {
    name: 'bundler',
    options: { module: 'ESNext', moduleResolution: 'Bundler' },
    extension: 'ts',
  },
  { name: "with Node's types", options: { module: 'NodeNext', ...node }, extension: 'mts' },
  {
    name: "with Node's types in CommonJS",
    options: { module: 'Node16', ...node },
    extension: 'cts',
  },
  { name: "with the DOM's types", options: { module: 'NodeNext', ...dom }, extension: 'ts' },
];

/**
 * Lays down a project of TypeScript's.
 *
 * @param typeRoots where Node's types are
 * @returns the arguments that check it
 */
export async function writeTyped(
  folder: string,
  { options, extension }: (typeof typeScriptModes)[number],
  typeRoots: string,
): Promise<readonly string[]> {
  const base = { target: 'ES2022', lib: ['ES2022'], types: [], noEmit: true };
  const strict = { strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false };
  const hasPlatform = 'types' in options || 'lib' in options;
  const files = [`typed.${extension}`, ...(hasPlatform ? [`platform.${extension}`] : [])];
  await writeFile(path.join(folder, `typed.${extension}`), typedProgram);
  await writeFile(path.join(folder, `platform.${extension}`), platformProgram);
  await writeFile(
    path.join(folder, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: { ...base, ...strict, typeRoots: [typeRoots], ...options },
      files,
    }),
  );
  return ['--project', path.join(folder, 'tsconfig.json')];
}
