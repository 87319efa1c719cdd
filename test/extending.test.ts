/** Runs what docs/extending.md shows. */
import assert from 'node:assert/strict';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { projectFolder, run, temporaryFolder } from './support/tools.js';

test('a storage of a program’s own, as printed, keeps every promise', async (t) => {
  const text = await readFile(path.join(projectFolder, 'docs', 'extending.md'), 'utf8');
  const [program] = [...text.matchAll(/^```js\n(.*?)^```$/gms)].map(([, snippet]) => snippet);
  const folder = await temporaryFolder(t);
  await mkdir(path.join(folder, 'node_modules'));
  await symlink(projectFolder, path.join(folder, 'node_modules', 'cowherd'));
  await writeFile(path.join(folder, 'storage.mjs'), program);
  const { stdout, code } = await run(process.execPath, ['storage.mjs'], {
    cwd: folder,
    // Otherwise it would take itself for a file of this run.
    env: { NODE_TEST_CONTEXT: '' },
  });
  assert.equal(code, 0, stdout);
  assert.match(stdout, /^# pass [3-9]\d$/m);
  assert.match(stdout, /^# fail 0$/m);
});
