/** The micro benchmarks run, and `npm run bench` tells of them. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { projectFolder, run } from '../support/tools.js';

const program = path.join(projectFolder, 'dist', 'bench', 'main.js');

test('each part of the engine is measured by itself', async () => {
  const words = [program, '--micro', '--seconds', '0.001'];
  const { code, stdout, stderr } = await run(process.execPath, words, { timeoutMs: 120_000 });
  assert.equal(code, 0, stderr);
  for (const part of ['hot path: read', 'hot path: write', 'planning', 'slice cache', 'codecs']) {
    assert.match(stdout, new RegExp(`^${part}[^\\n]* [\\d.]+ ns +±[\\d.]+ % +\\d+ samples$`, 'm'));
  }
});

test('--help tells of the groups and of the micro benchmarks', async () => {
  const { code, stdout } = await run(process.execPath, [program, '--help']);
  assert.equal(code, 0);
  for (const word of ['--group', '--only', '--folder', '--micro', '--seconds']) {
    assert.ok(stdout.includes(word), word);
  }
});
