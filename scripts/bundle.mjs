/**
 * Joins the compiled modules into a few bundles in dist/bundle, which are what the package ships:
 * Node takes about a millisecond to load a module, and a command line would wait for 150 of them.
 * Each worker stays a file of its own beside the others, found relative to the code that starts it.
 */
import { readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { answerHelp } from './help.mjs';

answerHelp(import.meta.url);

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const outdir = path.join(root, 'dist', 'bundle');
// Looked up among the sources: dist may hold what is no module any more.
const workers = readdirSync(path.join(root, 'src'), { recursive: true })
  .filter((name) => name.endsWith('-worker.ts'))
  .map((name) => name.replace(/\.ts$/, '.js'));

// Chunks are named after their content; old ones would stay.
rmSync(outdir, { recursive: true, force: true });
await build({
  entryPoints: ['index.js', 'cli/main.js', ...workers].map((name) =>
    path.join(root, 'dist', 'src', name),
  ),
  outdir,
  entryNames: '[name]',
  bundle: true,
  // What the library and the program share must exist once in a process.
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  // Names stay as they are, for the sake of stack traces.
  minifyWhitespace: true,
  minifySyntax: true,
  logLevel: 'warning',
});
