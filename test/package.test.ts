/** The package as npm makes and installs it: what is in it, and that it works by itself. */
import assert from 'node:assert/strict';
import { copyFile, mkdir, readFile, realpath, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { build } from 'esbuild';
import { addon } from '../src/native/addon.js';
import {
  needsTool,
  projectFolder,
  run,
  runOk,
  skipsSanitizer,
  temporaryFolder,
} from './support/tools.js';
import { installPacked, npm, runIn } from './support/consumer.js';
import {
  assertExercised,
  noAddon,
  typeScriptModes,
  writePrograms,
  writeTyped,
} from './support/consumer-programs.js';

const platform = `${process.platform}-${process.arch}`;
const needsAddon = addon === undefined ? 'needs the addon' : false;

/** The glibc 2.x that Node's own builds need, and the README states. */
const oldestGlibcMinor = 28;

/** Makes Node behave as what cannot require ECMAScript modules. */
const noRequireOfModules = ['--no-experimental-require-module'];

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
    /^dist\/(?:bundle\/[^/]*\.c?js(?:\.map)?|(?:index|conformance)\.d\.c?ts)$/.test(name);
  assert.deepEqual(
    names.filter((name) => !isProgram(name) && !name.startsWith(`prebuilt/${platform}/`)).sort(),
    ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist/bundle/cowherd.1', 'package.json'],
  );
  for (const wanted of [
    ...['bundle/index.js', 'bundle/index.cjs', 'bundle/main.js', 'bundle/main.js.map'],
    ...['index.d.ts', 'index.d.cts', 'bundle/conformance.js', 'bundle/conformance.cjs'],
    ...['conformance.d.ts', 'conformance.d.cts'],
  ]) {
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

test('the addon needs the C library alone, and none newer than Node needs', async (t) => {
  if (!needsTool(t, 'readelf')) return;
  if (skipsSanitizer(t, notPacked)) return;
  if (needsAddon !== false) {
    t.skip(needsAddon);
    return;
  }
  const shipped = path.join(projectFolder, 'prebuilt', platform, 'cowherd.node');
  const needed = await runOk('readelf', ['--wide', '--dynamic', '--version-info', shipped]);
  const libraries = [...needed.matchAll(/Shared library: \[([^\]]+)\]/g)].map(([, name]) => name);
  for (const name of libraries) assert.match(name, /^(?:libc|ld-linux-[a-z0-9-]+)\.so\.\d$/);
  // Without the file that keeps versions old, the newest here is 2.35.
  const minors = [...needed.matchAll(/Name: GLIBC_2\.(\d+)/g)].map(([, minor]) => Number(minor));
  assert.ok(minors.length > 0);
  assert.ok(Math.max(...minors) <= oldestGlibcMinor, needed);
  assert.doesNotMatch(needed, /Name: (?:GLIBCXX|CXXABI|GCC)_/);
});

test('installed into an empty project, it converts an image without a compiler', async (t) => {
  if (!needsTool(t, 'npm')) return;
  if (skipsSanitizer(t, notPacked)) return;
  const consumer = await installPacked(await temporaryFolder(t));
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

  await t.test('its types, in every mode of modules, to a strict compiler', async () => {
    const compiler = path.join(projectFolder, 'node_modules', 'typescript', 'bin', 'tsc');
    const types = path.join(projectFolder, 'node_modules', '@types');
    for (const mode of typeScriptModes) {
      const words = [compiler, ...(await writeTyped(folder, mode, types))];
      const { stdout, code } = await run(process.execPath, words, { cwd: folder });
      assert.deepEqual([mode.name, stdout, code], [mode.name, '', 0]);
    }
  });

  const how = needsAddon === false ? 'addon' : 'portable';
  // Where nothing can be locked, nothing that exists is written to otherwise.
  const env = needsAddon === false ? {} : { COWHERD_LOCKING: 'off' };
  await writePrograms(folder);

  await t.test('by either kind of module, which is one where Node can', async () => {
    for (const program of ['program.mjs', 'program.cjs']) {
      assertExercised(await runIn(consumer, process.execPath, [program], env), how);
    }
    const same = await runIn(consumer, process.execPath, ['same.cjs'], env);
    assert.equal(same.stdout, 'true\n');
    // As in Jest, and in whatever else cannot require ECMAScript modules.
    const words = [...noRequireOfModules, 'program.cjs'];
    assertExercised(await runIn(consumer, process.execPath, words, env), how);
  });

  await t.test('the promises of storages, by either kind of module', async () => {
    const count = 'storageConformance({ create: () => undefined }).length > 40';
    for (const words of [
      ['--eval', `import('cowherd/conformance').then((it) => console.log(it.${count}))`],
      [...noRequireOfModules, '--input-type=commonjs', '--eval'].concat(
        `console.log(require('cowherd/conformance').${count})`,
      ),
    ]) {
      const result = await runIn(consumer, process.execPath, words);
      assert.deepEqual(result, { stdout: 'true\n', stderr: '', code: 0 });
    }
  });

  await t.test('inside a bundle, as long as it is installed too', async () => {
    for (const [format, name] of [
      ['esm', 'bundled.mjs'],
      ['cjs', 'bundled.cjs'],
    ] as const) {
      const outfile = path.join(folder, 'out', name);
      const entry = path.join(folder, 'program.mjs');
      await build({ entryPoints: [entry], outfile, format, bundle: true, platform: 'node' });
      assertExercised(await runIn(consumer, process.execPath, [outfile], env), how);
      const elsewhere = path.join(path.dirname(folder), name);
      await copyFile(outfile, elsewhere);
      const { stderr, code } = await runIn(consumer, process.execPath, [elsewhere], {
        COWHERD_LOCKING: 'off',
      });
      assert.match(stderr, noAddon);
      assert.match(
        stderr,
        /a thread of the pool could not be started: the program's bundle lacks /,
      );
      assert.equal(code, 1);
    }
  });

  await t.test('with source maps that lead to the sources', async () => {
    const script = `import { openImage } from 'cowherd';
      await openImage('absent').catch((error) => console.log(error.stack));`;
    const words = ['--enable-source-maps', '--input-type=module', '--eval', script];
    const { stdout } = await runIn(consumer, process.execPath, words);
    assert.match(stdout, /\/src\/image\/graph\/open\.ts:\d+:\d+\)?\n/);
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
    assert.match(stderr, noAddon);
    assert.match(stderr, /cowherd\.node: /);
    const again = await runIn(consumer, command, ['bench', '-w', '-c', '1', 'portable.qcow2']);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /^cowherd: [^\n]*cannot be locked[^\n]*\n$/);
    const compared = ['compare', '-q', 'disk.raw', 'portable.qcow2'];
    assert.equal((await runIn(consumer, command, compared)).code, 0);
  });
});
