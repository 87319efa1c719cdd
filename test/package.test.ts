/** The package as npm makes and installs it: what is in it, and that it works by itself. */
import assert from 'node:assert/strict';
import { mkdir, readFile, realpath, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { addon } from '../src/native/addon.js';
import {
  findTool,
  needsTool,
  projectFolder,
  run,
  runOk,
  skipsSanitizer,
  temporaryFolder,
  type RunResult,
} from './support/tools.js';

const platform = `${process.platform}-${process.arch}`;
const needsAddon = addon === undefined ? 'needs the addon' : false;

/** What is read of a package.json. */
interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
}

/** Runs npm without a network; whatever it has to fetch fails the test. */
async function npm(words: readonly string[], cwd: string): Promise<string> {
  const script = await realpath(findTool('npm')!);
  return runOk(process.execPath, [script, ...words, '--offline', '--no-audit', '--no-fund'], {
    cwd,
    env: { npm_config_ignore_scripts: 'true', npm_config_loglevel: 'error' },
  });
}

async function pack(source: string, target: string): Promise<string> {
  const name = await npm(['pack', source, '--pack-destination', target], target);
  return path.join(target, name.trim());
}

/** The packages that the project needs when it runs, with those that they need. */
async function runtimeDependencies(): Promise<readonly string[]> {
  const needed = new Set<string>();
  const visit = async (folder: string): Promise<void> => {
    const text = await readFile(path.join(folder, 'package.json'), 'utf8');
    for (const name of Object.keys((JSON.parse(text) as Manifest).dependencies ?? {})) {
      if (needed.has(name)) continue;
      needed.add(name);
      await visit(path.join(projectFolder, 'node_modules', name));
    }
  };
  await visit(projectFolder);
  return [...needed];
}

/** An empty project into which the package was installed, and a PATH that has Node and no more. */
interface Consumer {
  readonly folder: string;
  readonly searchPath: string;
}

/** Installs the packed project, its dependencies coming from tarballs too instead of a registry. */
async function install(t: TestContext): Promise<Consumer> {
  const parent = await temporaryFolder(t);
  const folder = path.join(parent, 'project');
  const searchPath = path.join(parent, 'bin');
  const tarballs = path.join(parent, 'tarballs');
  for (const each of [folder, searchPath, tarballs]) await mkdir(each);
  await symlink(process.execPath, path.join(searchPath, 'node'));
  await writeFile(path.join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  const packed = [await pack(projectFolder, tarballs)];
  for (const name of await runtimeDependencies()) {
    packed.push(await pack(path.join(projectFolder, 'node_modules', name), tarballs));
  }
  await npm(['install', '--ignore-scripts', ...packed], folder);
  return { folder, searchPath };
}

function runIn(
  { folder, searchPath }: Consumer,
  command: string,
  words: readonly string[],
): Promise<RunResult> {
  return run(command, words, { cwd: folder, env: { PATH: searchPath } });
}

const notPacked = 'such an addon is not packed';

test('the addon was built', { skip: process.env['CI'] ? false : needsAddon }, () => {
  assert.notEqual(addon, undefined, 'COWHERD_BUILD_VERBOSE=1 npm run build tells why it was not');
});

test('the tarball holds what runs and what explains it, nothing else', async (t) => {
  if (!needsTool(t, 'npm')) return;
  if (skipsSanitizer(t, notPacked)) return;
  const listing = await npm(['pack', '--dry-run', '--json'], projectFolder);
  const [{ files }] = JSON.parse(listing) as { files: { path: string; mode: number }[] }[];
  const names = files.map((file) => file.path);
  const isProgram = (name: string): boolean =>
    /^dist\/(?:bundle\/[^/]*\.js|src\/.*\.d\.ts)$/.test(name);
  assert.deepEqual(
    names.filter((name) => !isProgram(name) && !name.startsWith(`prebuilt/${platform}/`)).sort(),
    ['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json'],
  );
  for (const wanted of ['bundle/index.js', 'src/index.d.ts', 'bundle/main.js']) {
    assert.ok(names.includes(`dist/${wanted}`), `the package lacks ${wanted}`);
  }
  if (needsAddon === false) {
    assert.deepEqual(
      names.filter((name) => name.startsWith('prebuilt/')).sort(),
      ['LICENSE.node-addon-api', 'LICENSE.zstd', 'cowherd.node'].map(
        (name) => `prebuilt/${platform}/${name}`,
      ),
    );
  }
});

test('installed into an empty project, it converts an image without a compiler', async (t) => {
  if (!needsTool(t, 'npm')) return;
  if (skipsSanitizer(t, notPacked)) return;
  const consumer = await install(t);
  const { folder } = consumer;
  await t.test('the command', async () => {
    const content = Buffer.alloc(3 * 1024 * 1024);
    content.fill('cowherd', 1024 * 1024, 2 * 1024 * 1024);
    await writeFile(path.join(folder, 'disk.raw'), content);
    const command = path.join(folder, 'node_modules', '.bin', 'cowherd');
    for (const words of [
      ['convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'disk.qcow2'],
      ['check', '-q', 'disk.qcow2'],
      ['convert', '-c', '-o', 'compression_type=zstd', '-O', 'qcow2', 'disk.qcow2', 'zstd.qcow2'],
      ['convert', '-f', 'qcow2', '-O', 'raw', 'zstd.qcow2', 'back.raw'],
    ]) {
      const result = await runIn(consumer, command, words);
      // A warning would mean that the addon did not load.
      assert.deepEqual({ ...result, words }, { stdout: '', stderr: '', code: 0, words });
    }
    assert.ok((await readFile(path.join(folder, 'back.raw'))).equals(content));
  });

  await t.test('the addon that came in the package', { skip: needsAddon }, async () => {
    await writeFile(
      path.join(folder, 'loaded.js'),
      `import { createImage } from 'cowherd';
       await createImage('new.qcow2', { format: 'qcow2', size: '1M' });
       const { sharedObjects } = process.report.getReport();
       console.log(sharedObjects.find((name) => name.endsWith('cowherd.node')));`,
    );
    const { stdout, stderr } = await runIn(consumer, process.execPath, ['loaded.js']);
    const shipped = `node_modules/cowherd/prebuilt/${platform}/cowherd.node`;
    assert.deepEqual([stdout, stderr], [`${path.join(await realpath(folder), shipped)}\n`, '']);
  });

  await t.test('its types, to a strict compiler', async () => {
    await writeFile(path.join(folder, 'consumer.ts'), typedConsumer);
    const compiler = path.join(projectFolder, 'node_modules', 'typescript', 'bin', 'tsc');
    const types = path.join(projectFolder, 'node_modules', '@types');
    const { stdout, code } = await run(
      process.execPath,
      [
        ...[compiler, '--noEmit', '--strict', '--exactOptionalPropertyTypes'],
        ...['--target', 'ES2022', '--lib', 'ES2022,ESNext.Disposable', '--module', 'NodeNext'],
        ...['--typeRoots', types, '--types', 'node', 'consumer.ts'],
      ],
      { cwd: folder },
    );
    assert.deepEqual([stdout, code], ['', 0]);
  });

  await t.test('only by its front door', async () => {
    const { stderr, code } = await runIn(consumer, process.execPath, [
      '--eval',
      "import('cowherd/dist/bundle/main.js')",
    ]);
    assert.equal(code, 1);
    assert.match(stderr, /ERR_PACKAGE_PATH_NOT_EXPORTED/);
  });

  await t.test('and where the binary is for another machine, with a warning', async () => {
    const shipped = path.join(folder, 'node_modules', 'cowherd', 'prebuilt', platform);
    await mkdir(shipped, { recursive: true });
    await writeFile(path.join(shipped, 'cowherd.node'), 'not for this machine');
    const command = path.join(folder, 'node_modules', '.bin', 'cowherd');
    const words = ['convert', '-O', 'qcow2', 'disk.raw', 'portable.qcow2'];
    const { stderr, code } = await runIn(consumer, command, words);
    assert.equal(code, 0);
    assert.match(
      stderr,
      /^\(node:\d+\) \[COWHERD_NO_ADDON\] Warning: the native addon is not available \(.*cowherd\.node: /,
    );
    const again = await runIn(consumer, command, ['bench', '-w', '-c', '1', 'portable.qcow2']);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /^cowherd: [^\n]*cannot be locked[^\n]*\n$/);
    const compared = ['compare', '-q', 'disk.raw', 'portable.qcow2'];
    assert.equal((await runIn(consumer, command, compared)).code, 0);
  });
});

/** Uses every exported function, and holds what they return to a type. */
const typedConsumer = `
import { compare, convert, createImage, openImage, CowherdError } from 'cowherd';
import type { ConvertOptions, Extent, Image } from 'cowherd';

const controller = new AbortController();
const options: ConvertOptions = { from: 'raw', to: 'qcow2', compress: true, signal: controller.signal };
await createImage('a.qcow2', { format: 'qcow2', size: '20G', clusterSize: 65536 });
await convert(['a.raw', 'b.raw'], 'a.qcow2', {
  ...options,
  onProgress: ({ doneBytes, totalBytes }) => { const share: number = doneBytes / totalBytes; void share; },
});
const image: Image = await openImage('a.qcow2', { readOnly: true, cache: 'none', aio: 'threads' });
const extents: Extent[] = [];
for await (const extent of image.map({ offset: 0, length: image.size })) extents.push(extent);
const queue = await image.openQueue();
await queue.read(new Uint8Array(512), 0);
await queue.close();
await image.close();
const { identical } = await compare('a.qcow2', 'a.raw');
const same: boolean = identical;
try {
  // @ts-expect-error a format that does not exist
  await openImage('a', { format: 'floppy' });
} catch (error) {
  if (error instanceof CowherdError && error.code === 'ERR_COWHERD_NOT_FOUND') void same;
}
`;
