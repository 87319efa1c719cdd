/**
 * Makes of the compiled modules what the package ships:
 *
 * - dist/bundle: a few files instead of 150, since Node takes about a millisecond to load a module.
 *   Each worker stays a file of its own beside the others, found relative to the code that starts it.
 *   `index.cjs` is the library once more, for who cannot load ECMAScript modules.
 * - dist/index.d.ts and dist/index.d.cts: the library's types, for each kind of module.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateDtsBundle } from 'dts-bundle-generator';
import { build } from 'esbuild';
import { answerHelp } from './help.mjs';

answerHelp(import.meta.url);

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const compiled = path.join(root, 'dist', 'src');
const outdir = path.join(root, 'dist', 'bundle');

const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));

const common = {
  outdir,
  entryNames: '[name]',
  bundle: true,
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  define: { COWHERD_VERSION: JSON.stringify(version) },
  // Names stay as they are, and lines short, for the sake of stack traces.
  minifyWhitespace: true,
  minifySyntax: true,
  lineLimit: 120,
  sourcemap: true,
  logLevel: 'warning',
};

async function bundleCode() {
  // Looked up among the sources: dist may hold what is no module any more.
  const workers = readdirSync(path.join(root, 'src'), { recursive: true })
    .filter((name) => name.endsWith('-worker.ts'))
    .map((name) => name.replace(/\.ts$/, '.js'));
  // Chunks are named after their content; old ones would stay.
  rmSync(outdir, { recursive: true, force: true });
  await build({
    ...common,
    entryPoints: ['index.js', 'cli/main.js', ...workers].map((name) => path.join(compiled, name)),
    // What the library and the program share must exist once in a process.
    splitting: true,
    format: 'esm',
  });
  await build({
    ...common,
    entryPoints: [path.join(compiled, 'index.js')],
    outExtension: { '.js': '.cjs' },
    format: 'cjs',
    // Where this file is needed, as in Jest, code cannot import either.
    supported: { 'dynamic-import': false },
    // Modules ask for `import.meta.url`, and do without it.
    logOverride: { 'empty-import-meta': 'silent' },
  });
}

/** The types, unless those that they are made of are as they were. */
function bundleTypes() {
  const names = readdirSync(compiled, { recursive: true }).filter((name) => name.endsWith('.d.ts'));
  const hash = createHash('sha256').update(readFileSync(fileURLToPath(import.meta.url)));
  for (const name of names.sort()) hash.update(readFileSync(path.join(compiled, name)));
  const stamp = hash.digest('hex');
  const stampFile = path.join(root, 'dist', '.types-stamp');
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return;

  const [types] = generateDtsBundle(
    [
      {
        filePath: path.join(compiled, 'index.d.ts'),
        output: { noBanner: true, exportReferencedTypes: false },
      },
    ],
    { preferredConfigPath: path.join(root, 'tsconfig.json') },
  );
  // Not every program's settings have the types of `await using`.
  const text = `/// <reference lib="esnext.disposable" />\n${types}`;
  for (const name of ['index.d.ts', 'index.d.cts']) {
    writeFileSync(path.join(root, 'dist', name), text);
  }
  writeFileSync(stampFile, stamp);
}

await bundleCode();
bundleTypes();
