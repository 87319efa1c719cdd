/**
 * Joins the compiled modules into a few bundles in dist/bundle, which are what the package ships:
 * Node takes about a millisecond to load a module, and a command line would wait for 150 of them.
 * Each worker stays a file of its own beside the others, found relative to the code that starts it.
 */
import { rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const dist = path.join(path.dirname(path.dirname(fileURLToPath(import.meta.url))), 'dist');
const outdir = path.join(dist, 'bundle');

// Chunks are named after their content; old ones would stay.
rmSync(outdir, { recursive: true, force: true });
await build({
  entryPoints: [
    'index.js',
    'cli/main.js',
    'image/pool-worker.js',
    'format/qcow2/check-tables-worker.js',
    'jobs/bench-worker.js',
  ].map((name) => path.join(dist, 'src', name)),
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
