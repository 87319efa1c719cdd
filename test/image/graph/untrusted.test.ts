/** Images that may be anybody's: what they name is not opened, and raw ones stay raw. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { runCowherd } from '../../support/both-tools.js';
import { temporaryFolder } from '../../support/tools.js';

test('an untrusted image that names other files is refused', async (t) => {
  const folder = await temporaryFolder(t);
  const at = (name: string): string => path.join(folder, name);
  await createImage(at('below.raw'), { format: 'raw', size: 65536 });
  const backing = { backingFile: 'below.raw', backingFormat: 'raw' as const };
  await createImage(at('top.qcow2'), { format: 'qcow2', ...backing });
  await createImage(at('data.qcow2'), { format: 'qcow2', size: 65536, dataFile: at('data.raw') });
  await createImage(at('plain.qcow2'), { format: 'qcow2', size: 65536 });
  const refused = { code: 'ERR_COWHERD_BACKING' };
  await assert.rejects(openImage(at('top.qcow2'), { untrusted: true }), refused);
  await assert.rejects(openImage(at('data.qcow2'), { untrusted: true }), refused);
  await assert.rejects(
    openImage(at('data.qcow2'), { untrusted: true, backing: 'ignore' }),
    refused,
  );
  for (const options of [{ backing: 'ignore' }, { backing: 'allow' }] as const) {
    await (await openImage(at('top.qcow2'), { untrusted: true, ...options })).close();
  }
  await (await openImage(at('plain.qcow2'), { untrusted: true })).close();
  for (const words of [
    ['map', 'top.qcow2'],
    ['check', 'top.qcow2'],
    ['compare', 'top.qcow2', 'plain.qcow2'],
    ['info', '--backing-chain', 'top.qcow2'],
    ['map', 'data.qcow2'],
    ['bench', '-c', '1', 'top.qcow2'],
    ['convert', '-O', 'raw', 'top.qcow2', 'out.raw'],
  ]) {
    const { code, stderr } = await runCowherd([...words, '--untrusted'], folder);
    assert.notEqual(code, 0, words.join(' '));
    assert.match(stderr, /^cowherd: [^\n]*(?:denied|not opened)\n$/, words.join(' '));
    const trusted = await runCowherd(words, folder);
    assert.ok(trusted.code <= 1 && !trusted.stderr.includes('denied'), trusted.stderr);
  }
  // What an image refers to can be asked, and no file of that need be there.
  const { code, stdout } = await runCowherd(['info', 'data.qcow2', '--untrusted'], folder);
  assert.equal(code, 0);
  assert.match(stdout, /data file: /);
});

test('a disk that was probed to be raw cannot become another format', async (t) => {
  const place = path.join(await temporaryFolder(t), 'disk.raw');
  await createImage(place, { format: 'raw', size: 65536 });
  const magic = Uint8Array.of(0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3);
  const probed = await openImage(place);
  const refused = { code: 'ERR_COWHERD_INVALID_ARGUMENT', filename: place };
  await assert.rejects(probed.write(magic, 0), refused);
  await probed.write(magic.subarray(0, 2), 0);
  await assert.rejects(probed.write(magic.subarray(2), 2), refused);
  await probed.write(new Uint8Array(1024).fill(7), 0);
  await probed.write(magic, 4);
  await probed.close();
  const named = await openImage(place, { format: 'raw' });
  await named.write(magic, 0);
  const content = new Uint8Array(8);
  await named.read(content, 0);
  assert.deepEqual(content, magic);
  await named.close();
});
