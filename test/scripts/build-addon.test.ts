/** What becomes of an addon that cannot be built. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { projectFolder, run, temporaryFolder } from '../support/tools.js';

test('an addon that cannot be built is a warning, one with a sanitizer an error', async (t) => {
  const folder = await temporaryFolder(t);
  for (const name of ['build-addon.mjs', 'help.mjs']) {
    await cp(path.join(projectFolder, 'scripts', name), path.join(folder, 'scripts', name));
  }
  const stale = path.join(folder, 'build/Release/cowherd.node');
  for (const { sanitizer, expected } of [
    { sanitizer: '', expected: 0 },
    { sanitizer: 'address', expected: 1 },
  ]) {
    await mkdir(path.dirname(stale), { recursive: true });
    await writeFile(stale, 'of an earlier build');
    // There are no sources here.
    const { code, stderr } = await run(
      process.execPath,
      [path.join(folder, 'scripts/build-addon.mjs')],
      { env: { COWHERD_SANITIZER: sanitizer } },
    );
    assert.equal(code, expected, stderr);
    assert.match(stderr, /^warning: the native addon was not built; .*\n$/);
    assert.ok(!existsSync(stale), 'the loader finds that of an earlier build');
  }
});
