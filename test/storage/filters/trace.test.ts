/** The filter `trace`: its lines. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { withFilters } from '../../../src/storage/filters/registry.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { run, temporaryFolder } from '../../support/tools.js';

test('a line for each operation: what, where, how long, and what came of it', async (t) => {
  const output = path.join(await temporaryFolder(t), 'trace');
  const file = await withFilters(
    new MemoryFile('a\ndisk'),
    [
      { name: 'trace', output },
      { name: 'fault', operation: 'flush', errno: 'ENOSPC' },
    ],
    openStorageFile,
  );
  await file.write(new Uint8Array(512), 4096);
  const queue = file.openQueue();
  await queue.readVector([new Uint8Array(100), new Uint8Array(200)], 50);
  await queue.close();
  await assert.rejects(file.flush(), { code: 'ERR_COWHERD_NO_SPACE' });
  await assert.rejects(file.read(new Uint8Array(1), -1));
  await file.close();
  const lines = (await readFile(output, 'utf8')).split('\n');
  assert.deepEqual(
    lines.map((line) => line.replace(/ \d+us /, ' Nus ')),
    [
      'a\\ndisk: write 4096+512 Nus ok',
      'a\\ndisk: read 50+300 Nus ok',
      'a\\ndisk: close 0+0 Nus ok',
      'a\\ndisk: flush 0+0 Nus ERR_COWHERD_NO_SPACE',
      'a\\ndisk: read -1+1 Nus ERR_COWHERD_OUT_OF_RANGE',
      'a\\ndisk: close 0+0 Nus ok',
      '',
    ],
  );
});

test('to a file that cannot be written to it refuses to', async () => {
  await assert.rejects(
    withFilters(new MemoryFile(), [{ name: 'trace', output: '/absent/trace' }], openStorageFile),
    {
      code: 'ERR_COWHERD_NOT_FOUND',
      message: "Could not trace to '/absent/trace': No such file or directory",
    },
  );
});

test('to standard error if nothing is said', async () => {
  const place = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href);
  const program = `
    const { withFilters } = await import(${place('../../../src/storage/filters/registry.js')});
    const { MemoryFile } = await import(${place('../../../src/storage/memory/memory-file.js')});
    const file = await withFilters(new MemoryFile('disk'), ['trace']);
    await file.read(new Uint8Array(10), 5);
    await file.close();`;
  const { stderr, stdout } = await run(process.execPath, ['--input-type=module', '-e', program]);
  assert.equal(stdout, '');
  assert.match(stderr, /^disk: read 5\+10 \d+us ok\ndisk: close 0\+0 \d+us ok\n$/);
});
