/** Developers' scripts say what they do, and a wrong option is a line. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { projectFolder, run } from '../support/tools.js';

const modules = ['build-addon', 'bundle', 'run-tests', 'test-sanitize'];
const compiled = ['crash', 'faults', 'fuzz', 'stress', 'try-package'];

test('scripts answer --help', async () => {
  for (const script of [
    ...modules.map((name) => path.join('scripts', `${name}.mjs`)),
    ...compiled.map((name) => path.join('dist', 'scripts', `${name}.js`)),
  ]) {
    const words = [path.join(projectFolder, script), '--help'];
    const { code, stdout, stderr } = await run(process.execPath, words, { timeoutMs: 20_000 });
    assert.equal(code, 0, script + stderr);
    assert.match(stdout, /^[A-Z][^\n]+\n/, script);
  }
});

test('a wrong option is a line', async () => {
  for (const name of compiled) {
    const script = path.join(projectFolder, 'dist', 'scripts', `${name}.js`);
    const { code, stderr } = await run(process.execPath, [script, '--nonsense']);
    assert.equal(code, 1, name);
    assert.match(stderr, /^Unknown option '--nonsense'[^\n]*\n$/, name);
  }
});
