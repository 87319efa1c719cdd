/**
 * Makes of the compiled modules what the package ships:
 *
 * - dist/bundle: a few files instead of 150, since Node takes about a millisecond to load a module.
 *   Each worker stays a file of its own beside the others, found relative to the code that starts it.
 *   `index.cjs` is the library once more, for who cannot load ECMAScript modules. The program is
 *   `main.cjs`, with what it needs of other packages: Node starts CommonJS sooner, and finds a package
 *   slowly. `main.js` is another name for it.
 * - dist/bundle/cowherd.1: the page of the manual.
 * - dist/index.d.ts and dist/index.d.cts: the library's types, for each kind of module; `conformance` has
 *   its own.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
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

/** What programs may import: names in the package, and the modules they are. */
const entries = {
  index: 'index',
  conformance: path.join('storage', 'conformance', 'conformance'),
};

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

const commonJs = {
  ...common,
  outExtension: { '.js': '.cjs' },
  format: 'cjs',
  // Where such a file is needed, as in Jest, code cannot import either.
  supported: { 'dynamic-import': false },
  // Modules ask for `import.meta.url`, and do without it.
  logOverride: { 'empty-import-meta': 'silent' },
};

async function bundleLibrary() {
  // Looked up among the sources: dist may hold what is no module any more.
  const workers = readdirSync(path.join(root, 'src'), { recursive: true })
    .filter((name) => name.endsWith('-worker.ts'))
    .map((name) => name.replace(/\.ts$/, '.js'));
  const modules = Object.values(entries).map((name) => path.join(compiled, `${name}.js`));
  await build({
    ...common,
    entryPoints: [...modules, ...workers.map((name) => path.join(compiled, name))],
    // What they share must exist once in a thread.
    splitting: true,
    format: 'esm',
  });
  await build({ ...commonJs, entryPoints: modules });
}

async function bundleProgram() {
  const main = {
    ...commonJs,
    packages: 'bundle',
    // A decoder that few commands need; installed like every dependency.
    external: ['xz-decompress'],
    entryPoints: { main: path.join(compiled, 'cli', 'main.js') },
  };
  const { metafile } = await build({ ...main, write: false, metafile: true });
  await build({ ...main, footer: { js: noticesOf(metafile) } });
  await build({
    ...common,
    stdin: { contents: "#!/usr/bin/env node\nimport './main.cjs';", sourcefile: 'main.js' },
    outdir: undefined,
    outfile: path.join(outdir, 'main.js'),
    external: ['./main.cjs'],
    format: 'esm',
  });
  for (const name of ['main.cjs', 'main.js']) chmodSync(path.join(outdir, name), 0o755);
}

/** A comment with the licences of the packages in a bundle, which ask for that. */
function noticesOf({ inputs }) {
  const names = Object.keys(inputs).map(
    (name) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(name)?.[1],
  );
  const notices = [...new Set(names)].filter(Boolean).map((name) => {
    const folder = path.join(root, 'node_modules', name);
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    return `${name}:\n\n${readFileSync(path.join(folder, file), 'utf8').trim()}\n`;
  });
  return `/*\n${notices.join('\n')}*/`;
}

/** The page of the manual, as the program tells it. */
function writeManual() {
  const page = execFileSync(process.execPath, [path.join(outdir, 'main.cjs'), 'help', '--man']);
  writeFileSync(path.join(outdir, 'cowherd.1'), page);
}

/** The types, unless those that they are made of are as they were. */
function bundleTypes() {
  const names = readdirSync(compiled, { recursive: true }).filter((name) => name.endsWith('.d.ts'));
  const hash = createHash('sha256').update(readFileSync(fileURLToPath(import.meta.url)));
  for (const name of names.sort()) hash.update(readFileSync(path.join(compiled, name)));
  const stamp = hash.digest('hex');
  const stampFile = path.join(root, 'dist', '.types-stamp');
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return;

  const bundles = generateDtsBundle(
    Object.values(entries).map((name) => ({
      filePath: path.join(compiled, `${name}.d.ts`),
      output: { noBanner: true, exportReferencedTypes: false },
    })),
    { preferredConfigPath: path.join(root, 'tsconfig.json') },
  );
  Object.keys(entries).forEach((name, index) => {
    // Not every program's settings have the types of `await using`, or those of Node: streams are `any` there.
    const known = bundles[index].replace(/^import .*'node:/gm, '// @ts-ignore\n$&');
    const text = `/// <reference lib="esnext.disposable" />\n${known}`;
    for (const extension of ['d.ts', 'd.cts']) {
      writeFileSync(path.join(root, 'dist', `${name}.${extension}`), text);
    }
  });
  writeFileSync(stampFile, stamp);
}

// Chunks are named after their content; old ones would stay.
rmSync(outdir, { recursive: true, force: true });
await bundleLibrary();
await bundleProgram();
writeManual();
bundleTypes();
