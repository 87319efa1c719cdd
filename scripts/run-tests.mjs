// Runs the compiled tests: `node scripts/run-tests.mjs [--quick] [filter...] [-- node options]`.
// Filters keep the test files whose path contains one of them; --quick leaves out those that take
// long (see `slow`). Node 20 expands no patterns for --test, so the files are listed here.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { answerHelp } from './help.mjs';

answerHelp(import.meta.url);

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const separator = process.argv.indexOf('--');
const words = process.argv.slice(2, separator === -1 ? undefined : separator);
const isQuick = words.includes('--quick');
const filters = words.filter((word) => word !== '--quick');
const nodeOptions = separator === -1 ? [] : process.argv.slice(separator + 1);

/**
 * What --quick leaves out: tests that search through many runs of one thing (interleavings, schedules,
 * power cuts, faults, what a seed draws), and those that start programs over and over. Beside them lie
 * tests that say by examples what is to hold.
 */
const slow =
  /^(bench|cli|crash|faults|fixtures|fuzz|model|schedules|scripts|stress|twins)\/|\.property\.|package|readme|recipes|repair|check-threads|free-space|convert|attaching/;

const folder = path.join(root, 'dist', 'test');
const compiled = existsSync(folder) ? readdirSync(folder, { recursive: true }) : [];
const files = compiled
  .filter((name) => name.endsWith('.test.js'))
  // What a deleted or renamed source left behind in dist is no test any more.
  .filter((name) => existsSync(path.join(root, 'test', name.replace(/\.js$/, '.ts'))))
  .filter((name) => !isQuick || !slow.test(name))
  .map((name) => path.join('dist', 'test', name))
  .filter((name) => filters.length === 0 || filters.some((filter) => name.includes(filter)))
  .sort();

if (files.length === 0) {
  console.error('run-tests: no test file matches; was `npm run build` run?');
  process.exit(1);
}

// Node leaves one core to itself, which of two is half.
const concurrency = isQuick ? [`--test-concurrency=${os.availableParallelism()}`] : [];
const child = spawn(
  process.execPath,
  [
    '--enable-source-maps',
    '--test',
    '--test-reporter=spec',
    ...concurrency,
    ...nodeOptions,
    ...files,
  ],
  { cwd: root, stdio: 'inherit' },
);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  process.exit(signal === null ? (code ?? 1) : 1);
});
