/** Images and pools that a program leaves open at its end. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

const modules = pathToFileURL(fileURLToPath(new URL('../../../src/image/', import.meta.url))).href;

const openings = {
  image: `const { openImage } = await import('${modules}graph/open.js');
    const image = await openImage(process.argv[1], { format: process.argv[2] });`,
  pool: `const { openPool } = await import('${modules}threads/pool.js');
    const image = await openPool(process.argv[1], { queues: 2, format: process.argv[2] });`,
} as const;

const ends = {
  'nothing more to do': '',
  exit: 'process.exit(0);',
  throw: "throw new Error('on purpose');",
} as const;

for (const what of ['image', 'pool'] as const) {
  for (const format of ['qcow2', 'raw'] as const) {
    for (const end of Object.keys(ends) as (keyof typeof ends)[]) {
      test(`a ${format} ${what} left open, ${end}`, async (t) => {
        const file = path.join(await temporaryFolder(t), 'disk.img');
        await createImage(file, { format, size: '8M' });
        const program = `${openings[what]}
          await image.write(new Uint8Array(65536).fill(7), 65536);
          ${ends[end]}`;
        const words = ['--input-type=module', '-e', program, file, format];
        const { code, stderr } = await run(process.execPath, words);
        const isClosed = end === 'nothing more to do';
        assert.equal(code, end === 'throw' ? 1 : 0, stderr);
        if (isClosed) assert.equal(stderr, '');
        else assert.match(stderr, /COWHERD_LEFT_OPEN\] Warning: '[^\n]*disk\.img' was not closed/);
        const image = await openImage(file, { readOnly: true, format });
        const found = new Uint8Array(65536);
        await image.read(found, 65536);
        await image.close();
        if (isClosed)
          assert.ok(
            found.every((byte) => byte === 7),
            'what was written is lost',
          );
        if (format === 'raw' || !needsTool(t, 'qemu-img')) return;
        const check = await run('qemu-img', ['check', file]);
        assert.ok(isClosed ? check.code === 0 : check.code === 0 || check.code === 3, check.stdout);
      });
    }
  }
}

test('an image that is only read is left open without a word', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.img');
  await createImage(file, { format: 'qcow2', size: '8M' });
  const program = `const { openImage } = await import('${modules}graph/open.js');
    await openImage(process.argv[1], { readOnly: true });
    process.exit(0);`;
  const { code, stderr } = await run(process.execPath, [
    '--input-type=module',
    '-e',
    program,
    file,
  ]);
  assert.deepEqual([code, stderr], [0, '']);
});

test('who ends the thread on purpose is told nothing of what is open', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.img');
  await createImage(file, { format: 'qcow2', size: '8M' });
  const program = `${openings.image}
    await image.write(new Uint8Array(65536).fill(7), 65536);
    const { forgetOpen } = await import('${modules}graph/left-open.js');
    forgetOpen();
    process.exit(130);`;
  const words = ['--input-type=module', '-e', program, file, 'qcow2'];
  const { code, stderr } = await run(process.execPath, words);
  assert.deepEqual([code, stderr], [130, '']);
});
