/**
 * Runs tests with the addon built under sanitizers, and fails on any report of theirs:
 *
 *     npm run test:sanitize [-- [address] [undefined] [thread] [--all] [filter...]]
 *
 * Without names all three are used; without filters the tests of native code and of threads are run,
 * with `--all` the whole suite. The ordinary addon is built again at the end.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { answerHelp } from './help.mjs';

answerHelp(import.meta.url);

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const runtimes = { address: 'libasan.so', undefined: 'libubsan.so', thread: 'libtsan.so' };
/** Filters of run-tests.mjs, each a run of its own. */
const concurrency = [
  ...['native/', 'storage/', 'image/threads', 'image/threads/pool', 'stress/'],
  ...['export/vhost-user-blk', 'export/fuse'],
];

const words = process.argv.slice(2);
const named = words.filter((word) => word in runtimes);
const filters = words.filter((word) => !(word in runtimes) && word !== '--all');
const runs = words.includes('--all')
  ? [[]]
  : (filters.length > 0 ? filters : concurrency).map((word) => [word]);

function build(sanitizer) {
  const script = path.join(root, 'scripts/build-addon.mjs');
  const environment = { ...process.env, COWHERD_SANITIZER: sanitizer };
  const { status } = spawnSync(process.execPath, [script], { stdio: 'inherit', env: environment });
  return status === 0;
}

function runTests(sanitizer, filter) {
  const runtime = execFileSync('g++', [`-print-file-name=${runtimes[sanitizer]}`])
    .toString()
    .trim();
  const suppressions = path.join(root, 'scripts/tsan-suppressions.txt');
  const { status } = spawnSync(
    process.execPath,
    [path.join(root, 'scripts/run-tests.mjs'), ...filter],
    {
      stdio: 'inherit',
      env: {
        ...process.env,
        LD_PRELOAD: runtime,
        COWHERD_SANITIZER: sanitizer,
        // Node itself gives back little of what it holds when it ends; and what a shell starts may
        // load other libraries before the runtime.
        ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:exitcode=66:verify_asan_link_order=0',
        UBSAN_OPTIONS: 'halt_on_error=1:print_stacktrace=1:exitcode=66',
        TSAN_OPTIONS: `exitcode=66:suppressions=${suppressions}`,
        COWHERD_TEST_RUNS: process.env.COWHERD_TEST_RUNS ?? '5',
        COWHERD_STRESS_SECONDS: process.env.COWHERD_STRESS_SECONDS ?? '15',
      },
    },
  );
  return status === 0;
}

const failures = [];
try {
  for (const sanitizer of named.length > 0 ? named : Object.keys(runtimes)) {
    if (!build(sanitizer))
      throw new Error(`the addon cannot be built with -fsanitize=${sanitizer}`);
    for (const filter of runs) {
      if (!runTests(sanitizer, filter)) failures.push(`${sanitizer}: ${filter.join(' ') || 'all'}`);
    }
  }
} finally {
  build('');
}
if (failures.length > 0) {
  console.error(`failed under a sanitizer: ${failures.join('; ')}`);
  process.exit(1);
}
console.log('no sanitizer has anything to report');
