/** Secrets as objects, and encrypted images by them, beside qemu-img. */
import assert from 'node:assert/strict';
import { createCipheriv } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { assertSame, runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const secret = 'hunter2';
const object = ['--object', `secret,id=s,data=${secret}`];
const size = 1 << 20;

/** A folder with encrypted images of each kind, and their disk as it is. */
async function makeImages(folder: string): Promise<void> {
  const luks = { secret, iterTime: 1 } as const;
  const bytes = new Uint8Array(size).fill(7, 65536, 200_000);
  await writeFile(path.join(folder, 'plain.raw'), bytes);
  for (const [name, options] of [
    ['luks.qcow2', { format: 'qcow2', encrypt: { ...luks, format: 'luks' } }],
    ['aes.qcow2', { format: 'qcow2', encrypt: { secret, format: 'aes' } }],
    ['plain.qcow2', { format: 'qcow2' }],
    ['disk.luks', { format: 'luks', encrypt: luks }],
  ] as const) {
    const file = path.join(folder, name);
    await createImage(file, { ...options, size });
    await using image = await openImage(file, { encrypt: { secret } });
    await image.write(bytes.subarray(65536, 200_000), 65536);
    if (name === 'disk.luks') await image.write(bytes, 0);
  }
}

const named = {
  'luks.qcow2': 'driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=luks.qcow2',
  'aes.qcow2': 'driver=qcow2,encrypt.key-secret=s,file.filename=aes.qcow2',
  'disk.luks': 'driver=luks,key-secret=s,file.filename=disk.luks',
};

test('commands on encrypted images, with the secret and without, say what the real tool says', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await makeImages(folder);
  for (const [name, list] of Object.entries(named)) {
    for (const words of [
      ['info'],
      ['info', '--output=json'],
      ['map'],
      ['map', '--output=json'],
      ['check'],
      ['measure', '-O', 'qcow2'],
      ['snapshot', '-l'],
    ]) {
      await assertSame([...words, name], folder);
      // The real tool has a name of its own for an image that was opened by more than its path.
      if (words[0] === 'info') continue;
      await assertSame([...words, ...object, '--image-opts', list], folder);
    }
    const wrong = ['--object', 'secret,id=s,data=wrong'];
    for (const other of [wrong, []]) {
      if (name === 'aes.qcow2' && other === wrong) continue;
      await assertSame(['map', ...other, '--image-opts', list], folder);
    }
    const plain = 'driver=raw,file.filename=plain.raw';
    await assertSame(['compare', ...object, '--image-opts', list, plain], folder);
  }
  for (const list of [
    'driver=qcow2,encrypt.format=aes,encrypt.key-secret=s,file.filename=luks.qcow2',
    'driver=qcow2,encrypt.format=other,encrypt.key-secret=s,file.filename=luks.qcow2',
    'driver=qcow2,encrypt.format=luks,encrypt.key-secret=s,file.filename=plain.qcow2',
    'driver=qcow2,encrypt.key-secret=s,file.filename=plain.qcow2',
  ]) {
    await assertSame(['map', ...object, '--image-opts', list], folder);
  }
  const file = { driver: 'file', filename: 'luks.qcow2' };
  const name = { driver: 'qcow2', encrypt: { format: 'luks', 'key-secret': 's' }, file };
  await assertSame(['map', ...object, `json:${JSON.stringify(name)}`], folder);
});

test('every form of a secret is taken, and what is none refused as the real tool does', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await makeImages(folder);
  const key = Buffer.alloc(32, 'k');
  const cipher = createCipheriv('aes-256-cbc', key, Buffer.alloc(16));
  const enciphered = Buffer.concat([cipher.update(secret), cipher.final()]);
  await writeFile(path.join(folder, 'password'), secret);
  await writeFile(path.join(folder, 'binary'), enciphered);
  const iv = Buffer.alloc(16).toString('base64');
  const data = enciphered.toString('base64');
  const others = [
    '--object',
    `secret,id=m,data=${key.toString()}`,
    '--object',
    'secret,id=x,data=x',
  ];
  const encoded = Buffer.from(secret).toString('base64');
  for (const properties of [
    'id=s,file=password',
    `id=s,data=${encoded},format=base64`,
    `id=s,data=${data},format=base64,keyid=m,iv=${iv}`,
    `id=s,file=binary,keyid=m,iv=${iv}`,
    `id=s,data=${data},format=base64,keyid=m`,
    `id=s,data=${data},format=base64,keyid=m,iv=AAAA`,
    `id=s,data=${data},format=base64,keyid=m,iv=!!`,
    `id=s,data=AAAA,format=base64,keyid=m,iv=${iv}`,
    `id=s,data=${data},format=base64,keyid=x,iv=${iv}`,
    `id=s,data=${data},format=base64,keyid=none,iv=${iv}`,
    'id=s',
    'id=s,data=x,file=password',
    'id=s,data=x,format=other',
    'id=s,data=x,other=1',
    'id=s,file=/nonexistent',
    'id=s,data=zz!,format=base64',
    'id=m,data=x',
    'data=x',
  ]) {
    const words = [...others, '--object', `secret,${properties}`];
    await assertSame(['map', ...words, '--image-opts', named['luks.qcow2']], folder);
  }
  const json = JSON.stringify({ 'qom-type': 'secret', id: 's', data: secret });
  await assertSame(['map', '--object', json, '--image-opts', named['luks.qcow2']], folder);
});

test('encrypted images are made and converted by the options of the real tool', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await makeImages(folder);
  const luks = 'encrypt.format=luks,encrypt.key-secret=s';
  for (const options of [
    'encryption=on',
    'encryption=on,encrypt.key-secret=s',
    `encryption=on,${luks}`,
    'encrypt.key-secret=s',
    'encrypt.format=other,encrypt.key-secret=s',
    'encrypt.format=aes,encrypt.cipher-alg=aes-128,encrypt.key-secret=s',
    'encrypt.format=luks',
    'encrypt.format=luks,encrypt.key-secret=none',
    `${luks},encrypt.cipher-alg=other`,
    `${luks},encrypt.cipher-alg=3des`,
    `${luks},encrypt.hash-alg=other`,
    `${luks},encrypt.iter-time=x`,
    `${luks},encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha1`,
  ]) {
    await assertSame(['create', ...object, '-f', 'qcow2', '-o', options, 'new', '1M'], folder);
  }
  for (const options of ['key-secret=none', 'key-secret=s,cipher-alg=other', 'help']) {
    await assertSame(['create', ...object, '-f', 'luks', '-o', options, 'new', '1M'], folder);
  }
  await assertSame(['create', '-f', 'luks', 'new', '1M'], folder);
  for (const words of [
    ['convert', '-c', ...object, '-O', 'qcow2', '-o', luks, 'plain.raw', 'new'],
    ['convert', ...object, '-O', 'qcow2', '-o', 'encrypt.format=luks', 'plain.raw', 'new'],
    ['measure', '-O', 'luks', '--size', '1G'],
    [
      'measure',
      ...object,
      '-O',
      'luks',
      '-o',
      'key-secret=s,cipher-alg=aes-128,iter-time=1',
      '--size',
      '1G',
    ],
    ['measure', ...object, '-O', 'qcow2', '-o', `${luks},encrypt.iter-time=1`, '--size', '1G'],
    ['measure', '-O', 'qcow2', '-o', 'encrypt.format=aes', '--size', '1G'],
    ['create', '-f', 'qcow2', '-b', 'luks.qcow2', '-F', 'qcow2', 'over'],
  ]) {
    await assertSame(words, folder);
  }
  const made = ['-o', `${luks},encrypt.iter-time=1`, '-O', 'qcow2'];
  const { code, stderr } = await runCowherd(
    ['convert', ...object, ...made, 'plain.raw', 'new'],
    folder,
  );
  assert.equal(code, 0, stderr);
  const list = 'driver=qcow2,encrypt.key-secret=s,file.filename=new';
  const plain = 'driver=raw,file.filename=plain.raw';
  await runOk('qemu-img', ['compare', ...object, '--image-opts', list, plain], { cwd: folder });
  const below = `json:${JSON.stringify({ driver: 'qcow2', 'encrypt.key-secret': 's', 'file.filename': 'new' })}`;
  await runQemuImg(['create', '-f', 'qcow2', '-b', below, '-F', 'qcow2', 'above'], folder);
  await assertSame(['map', '--output=json', ...object, 'above'], folder);
  await assertSame(['compare', ...object, 'above', 'plain.raw'], folder);
});
