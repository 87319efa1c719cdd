/** Memory of images: no more than they can use, however many are opened one after the other. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createImage } from '../../src/image/graph/create.js';
import { run, temporaryFolder } from '../support/tools.js';

const modules = pathToFileURL(fileURLToPath(new URL('../../src/image/', import.meta.url))).href;
const mib = 1024 * 1024;

async function peakOf(program: string, ...words: readonly string[]): Promise<number> {
  const text = `const { openImage } = await import('${modules}graph/open.js');
    let peak = 0;
    ${program}
    console.log(peak);`;
  const args = ['--input-type=module', '-e', text, ...words];
  const { code, stdout, stderr } = await run(process.execPath, args);
  assert.equal(code, 0, stderr);
  return Number(stdout);
}

test('images opened and closed for ever keep within a bound', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: '64M' });
  const peak = await peakOf(
    `for (let round = 0; round < 400; round++) {
      const image = await openImage(process.argv[1]);
      await image.write(new Uint8Array(4096).fill(round), (round % 1000) * 65536);
      await image.close();
      peak = Math.max(peak, process.memoryUsage.rss());
    }`,
    file,
  );
  t.diagnostic(`${Math.round(peak / mib)} MiB`);
  assert.ok(peak < 350 * mib, `${Math.round(peak / mib)} MiB`);
});

test('a chain of a hundred images keeps within a bound', async (t) => {
  const folder = await temporaryFolder(t);
  for (let link = 0; link < 100; link++) {
    await createImage(path.join(folder, `${link}.qcow2`), {
      format: 'qcow2',
      size: '64M',
      ...(link > 0 && {
        backingFile: `${link - 1}.qcow2`,
        backingFormat: 'qcow2' as const,
        backingUnchecked: true,
      }),
    });
  }
  const peak = await peakOf(
    `const image = await openImage(process.argv[1]);
    for (let at = 0; at < 64; at++) await image.read(new Uint8Array(65536), at * 1048576);
    peak = process.memoryUsage.rss();
    await image.close();`,
    path.join(folder, '99.qcow2'),
  );
  t.diagnostic(`${Math.round(peak / mib)} MiB`);
  assert.ok(peak < 250 * mib, `${Math.round(peak / mib)} MiB`);
});
