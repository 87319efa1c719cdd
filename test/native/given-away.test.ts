/** Buffers whose memory is given away while a request uses it: nobody meets memory that was freed. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { needsTool, run, temporaryFolder } from '../support/tools.js';

const modules = fileURLToPath(new URL('../../src/', import.meta.url));

/** Transfers buffers at once after a request was begun with them, and lets their memory be collected. */
const program = `
const [file, kind, cache] = process.argv.slice(2);
const { createImage } = await import(${JSON.stringify(pathToFileURL(`${modules}image/graph/create.js`))});
const { openImage } = await import(${JSON.stringify(pathToFileURL(`${modules}image/graph/open.js`))});
const clusterBytes = 65536;
const clusters = 128;
await createImage(file, { format: 'qcow2', size: clusters * clusterBytes });
let image = await openImage(file, { cache });
const old = new Uint8Array(clusterBytes).fill(0xab);
for (let at = 0; at < clusters; at++) {
  if (kind === 'inflate') await image.writeCompressed(old, at * clusterBytes);
  else await image.write(old, at * clusterBytes);
}
await image.flush();
let foreign = 0;
// Of those that have to do with compression, more than are dealt with at a time.
const count = kind === 'compress' || kind === 'inflate' ? 96 : 32;
for (let round = 0; round < 12; round++) {
  const requests = [];
  for (let index = 0; index < count; index++) {
    const at = (round * count + index) % clusters;
    const buffer = new Uint8Array(clusterBytes).fill(0xcd);
    const request =
      kind === 'read' || kind === 'inflate' ? image.read(buffer, at * clusterBytes)
      : kind === 'compress' && round < 4 ? image.writeCompressed(buffer, at * clusterBytes)
      : image.write(buffer, at * clusterBytes);
    requests.push(request.catch((error) => {
      if (error.code !== 'ERR_COWHERD_INVALID_ARGUMENT') throw error;
    }));
    structuredClone(buffer.buffer, { transfer: [buffer.buffer] });
  }
  globalThis.gc();
  const others = Array.from({ length: 64 }, () => new Uint8Array(clusterBytes).fill(0x11));
  await Promise.all(requests);
  for (const other of others) if (other.some((byte) => byte !== 0x11)) foreign++;
}
const found = new Uint8Array(clusterBytes);
for (let at = 0; at < clusters; at++) {
  await image.read(found, at * clusterBytes);
  if (found.some((byte) => byte !== 0xcd && byte !== 0xab)) foreign++;
}
await image.close();
console.log(foreign);
`;

for (const [kind, cache, environment] of [
  ['read', 'writeback', {}],
  ['read', 'none', {}],
  ['write', 'writeback', {}],
  ['write', 'none', {}],
  ['compress', 'writeback', {}],
  ['inflate', 'writeback', {}],
  ['read', 'writeback', { COWHERD_NO_ADDON: '1', COWHERD_LOCKING: 'off' }],
  ['write', 'writeback', { COWHERD_NO_ADDON: '1', COWHERD_LOCKING: 'off' }],
] as const) {
  const where = 'COWHERD_NO_ADDON' in environment ? ', without the addon' : '';
  test(`memory given away during a ${kind}, cache ${cache}${where}`, async (t) => {
    const file = path.join(await temporaryFolder(t), 'disk.qcow2');
    const { code, stdout, stderr } = await run(
      process.execPath,
      ['--expose-gc', '--input-type=module', '-e', program, '-', file, kind, cache],
      { env: { ...process.env, ...environment } },
    );
    assert.equal(code, 0, stderr);
    assert.equal(stdout, '0\n', 'requests met memory that was not theirs');
    if (!needsTool(t, 'qemu-img')) return;
    assert.equal((await run('qemu-img', ['check', file])).code, 0);
  });
}

/** Reads into new buffers, and says by how many bytes their memory has grown in the end. */
const hoarding = `
const [file] = process.argv.slice(2);
const { createImage } = await import(${JSON.stringify(pathToFileURL(`${modules}image/graph/create.js`))});
const { openImage } = await import(${JSON.stringify(pathToFileURL(`${modules}image/graph/open.js`))});
const bytes = 4 << 20;
await createImage(file, { format: 'raw', size: bytes });
const image = await openImage(file, { format: 'raw' });
const read = () => image.read(new Uint8Array(bytes), 0);
await read();
globalThis.gc();
const before = process.memoryUsage().arrayBuffers;
for (let round = 0; round < 8; round++) await Promise.all(Array.from({ length: 16 }, read));
let grown = Infinity;
// V8 frees such memory some time after it was collected.
for (let look = 0; look < 50 && grown > bytes * 4; look++) {
  await new Promise((resolve) => setTimeout(resolve, 20));
  globalThis.gc();
  grown = process.memoryUsage().arrayBuffers - before;
}
console.log(grown);
await image.close();
`;

test('no memory is held once its request has ended', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.raw');
  const { code, stdout, stderr } = await run(process.execPath, [
    '--expose-gc',
    '--input-type=module',
    '-e',
    hoarding,
    '-',
    file,
  ]);
  assert.equal(code, 0, stderr);
  assert.ok(Number(stdout) <= 16 << 20, `${stdout.trim()} bytes more`);
});
