/** Every cipher, generator of vectors and hash: what one tool writes the other reads, in qcow2 and by itself. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { EncryptOptions } from '../../../src/format/create-options.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const size = 320 * 1024;
const secret = 'hunter2';
const object = ['--object', `secret,id=s,data=${secret}`];

interface Case extends EncryptOptions {
  readonly in: 'qcow2' | 'luks';
}

const ciphers = ['aes-128', 'aes-256'].flatMap((cipherAlg) =>
  ['xts', 'cbc', 'ctr', 'ecb'].map((cipherMode) => ({ cipherAlg, cipherMode })),
);
const generators = [
  { ivgenAlg: 'plain' },
  { ivgenAlg: 'plain64' },
  { ivgenAlg: 'essiv', ivgenHashAlg: 'sha256' },
];
const hashes = ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160', 'sm3'];

/** Every one, alternating between qcow2 and by itself so that each meets both. */
function cases(): readonly Case[] {
  const chosen: EncryptOptions[] = [
    ...ciphers.flatMap((cipher) => generators.map((generator) => ({ ...cipher, ...generator }))),
    ...hashes.map((hashAlg) => ({ hashAlg })),
    { cipherAlg: 'aes-192', cipherMode: 'xts' },
    { cipherMode: 'cbc', ivgenAlg: 'essiv', ivgenHashAlg: 'md5' },
    { cipherMode: 'cbc', ivgenAlg: 'essiv', ivgenHashAlg: 'sm3' },
  ];
  const luks = chosen.map((options, index): Case => {
    const common = { ...options, iterTime: 1, secret };
    return index % 2 === 0 ? { ...common, in: 'qcow2', format: 'luks' } : { ...common, in: 'luks' };
  });
  return [...luks, { in: 'qcow2', format: 'aes', secret }];
}

/** An image as the real tool names it. */
function named(format: string, file: string): string {
  const prefix = format === 'qcow2' ? 'encrypt.' : '';
  return `driver=${format},${prefix}key-secret=s,file.filename=${file}`;
}

test('what is written here is read by the real tool, and the other way round', async (t) => {
  if (!needsTool(t, 'qemu-img') || !needsTool(t, 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const bytes = new Uint8Array(randomBytes(size));
  bytes.fill(0, 70_000, 200_000);
  await writeFile(path.join(folder, 'plain'), bytes);
  for (const { in: format, ...encrypt } of cases()) {
    const what = JSON.stringify({ format, ...encrypt });
    const file = path.join(folder, 'disk');
    await createImage(file, { format, size, encrypt });
    {
      await using image = await openImage(file, { format, encrypt: { secret } });
      await image.write(bytes, 0);
    }
    const name = named(format, 'disk');
    const plain = 'driver=raw,file.filename=plain';
    await runOk('qemu-img', ['compare', ...object, '--image-opts', name, plain], { cwd: folder });
    const writes = ['write -P 5 512 130560', 'write -P 6 320000 512'];
    const commands = writes.flatMap((write) => ['-c', write]);
    await runOk('qemu-io', [...object, ...commands, '--image-opts', name], { cwd: folder });
    const expected = bytes.slice();
    expected.fill(5, 512, 512 + 130_560).fill(6, 320_000, 320_512);
    await using image = await openImage(file, { format, encrypt: { secret }, readOnly: true });
    const found = new Uint8Array(size);
    await image.read(found, 0);
    assert.ok(Buffer.compare(found, expected) === 0, what);
  }
});

test('images that the real tool has made are read', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const bytes = new Uint8Array(randomBytes(size));
  await writeFile(path.join(folder, 'plain'), bytes);
  for (const [format, options] of [
    ['luks', 'key-secret=s,iter-time=10'],
    ['qcow2', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,compat=0.10'],
    ['qcow2', 'encrypt.format=aes,encrypt.key-secret=s'],
  ] as const) {
    const words = ['convert', ...object, '-O', format, '-o', options, 'plain', 'disk'];
    await runOk('qemu-img', words, { cwd: folder });
    const file = path.join(folder, 'disk');
    await using image = await openImage(file, { encrypt: { secret } });
    const found = new Uint8Array(size);
    await image.read(found, 0);
    assert.ok(Buffer.compare(found, bytes) === 0, options);
  }
});

test('cryptsetup reads what is made here, and what it makes is read', async (t) => {
  if (!needsTool(t, 'cryptsetup')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'password'), secret);
  const key = ['--key-file', 'password', '--batch-mode'];
  const file = path.join(folder, 'disk');
  await createImage(file, { format: 'luks', size, encrypt: { secret, iterTime: 1 } });
  const dump = await runOk('cryptsetup', ['luksDump', 'disk'], { cwd: folder });
  assert.match(dump, /Cipher mode: +\txts-plain64/);
  await runOk('cryptsetup', ['open', '--test-passphrase', ...key, 'disk'], { cwd: folder });
  await writeFile(file, new Uint8Array(4 * 1024 * 1024));
  const words = ['luksFormat', '--type', 'luks1', '--iter-time', '10', '--cipher'];
  const cipher = ['aes-cbc-essiv:sha256', '--key-size', '256', '--hash', 'sha512'];
  await runOk('cryptsetup', [...words, ...cipher, ...key, 'disk'], { cwd: folder });
  await using image = await openImage(file, { encrypt: { secret }, readOnly: true });
  const { formatSpecific } = await image.info();
  assert.equal(image.format, 'luks');
  assert.equal(formatSpecific?.type, 'luks');
});
