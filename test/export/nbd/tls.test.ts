/** Served images behind TLS: with certificates, with shared keys, and never without. */
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { readTlsFolder } from '../../../src/export/nbd/tls.js';
import { serve } from '../../../src/export/serve.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { NbdClient } from '../../support/nbd-client.js';
import { makeCertificates } from '../../support/certificates.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const mebi = 1024 * 1024;

interface Served {
  readonly folder: string;
  readonly socket: string;
  readonly problems: readonly string[];
}

/** Serves a disk of 4 MiB with the credentials of `folder/creds`. */
async function serveSecured(t: TestContext, folder: string): Promise<Served> {
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: 4 * mebi });
  const image = await openImage(file);
  const socket = path.join(folder, 's');
  const problems: string[] = [];
  const server = await serve([{ image }], {
    nbd: `unix:${socket}`,
    workers: 2,
    tls: await readTlsFolder(path.join(folder, 'creds')),
    onProblem: (why) => problems.push(why),
  });
  t.after(() => server.close().finally(() => image.close()));
  return { folder, socket, problems };
}

test('certificates: clients that have one, and no others', async (t) => {
  if (!needsTool(t, 'openssl', 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  await makeCertificates(folder);
  const { socket, problems } = await serveSecured(t, folder);
  const creds = `tls-creds-x509,id=t,endpoint=client,dir=${path.join(folder, 'creds')}`;
  const image = `driver=nbd,server.type=unix,server.path=${socket},tls-creds=t,tls-hostname=localhost`;
  const io = ['-c', 'write -P 6 1M 2M', '-c', 'flush', '-c', 'read -P 6 1M 2M'];
  await runOk('qemu-io', ['--object', creds, '--image-opts', ...io, image]);
  await runOk('qemu-io', ['--object', creds, '--image-opts', '-c', 'read -P 6 2M 1M', image]);
  assert.deepEqual(problems, []);
  await assert.rejects(NbdClient.connect(socket), /TLS is required/);
  // Without a certificate of its own.
  const other = path.join(folder, 'other');
  await mkdir(other);
  const authority = await readFile(path.join(folder, 'creds', 'ca-cert.pem'));
  await writeFile(path.join(other, 'ca-cert.pem'), authority);
  const bare = `tls-creds-x509,id=t,endpoint=client,dir=${other}`;
  const refused = await run('qemu-io', [
    ...['--object', bare, '--image-opts', '-c', 'read 0 1M', image],
  ]);
  assert.notEqual(refused.code, 0);
  while (problems.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
});

test('keys that are shared', async (t) => {
  if (!needsTool(t, 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  for (const [name, key] of [
    ['creds', '00112233445566778899aabbccddeeff'],
    ['wrong', 'ffeeddccbbaa99887766554433221100'],
  ]) {
    await mkdir(path.join(folder, name));
    await writeFile(path.join(folder, name, 'keys.psk'), `qemu:${key}\n`);
  }
  const { socket } = await serveSecured(t, folder);
  const image = `driver=nbd,server.type=unix,server.path=${socket},tls-creds=t`;
  const io = (keys: string): readonly string[] => [
    ...['--object', `tls-creds-psk,id=t,endpoint=client,dir=${path.join(folder, keys)}`],
    ...['--image-opts', '-c', 'write -P 6 0 1M', '-c', 'read -P 6 0 1M', image],
  ];
  await runOk('qemu-io', io('creds'));
  assert.notEqual((await run('qemu-io', io('wrong'))).code, 0);
});

test('what a client sends in the clear behind its request for TLS is not taken', async (t) => {
  if (!needsTool(t, 'openssl')) return;
  const folder = await temporaryFolder(t);
  await makeCertificates(folder);
  const { socket, problems } = await serveSecured(t, folder);
  const option = (kind: number): Buffer =>
    Buffer.concat([Buffer.from('IHAVEOPT'), Buffer.from([0, 0, 0, kind, 0, 0, 0, 0])]);
  const client = connect(socket);
  client.on('error', () => undefined);
  client.resume();
  client.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), option(5), option(8)]));
  await new Promise((resolve) => client.once('close', resolve));
  assert.deepEqual(problems, ['the client goes on before TLS has begun']);
});

test('credentials that are none are refused', async (t) => {
  const folder = await temporaryFolder(t);
  await assert.rejects(readTlsFolder(folder), /server-cert\.pem': No such file or directory$/);
  await writeFile(path.join(folder, 'keys.psk'), 'no key');
  await assert.rejects(readTlsFolder(folder), /keys\.psk': a line is not NAME:KEY/);
  const image = await openImage(path.join(folder, 'keys.psk'), { format: 'raw' });
  t.after(() => image.close());
  for (const tls of [{}, { cert: 'x', key: 'y' }]) {
    await assert.rejects(serve([{ image }], { nbd: `unix:${folder}/s`, tls }), {
      code: 'ERR_COWHERD_INVALID_ARGUMENT',
      message: /^Invalid credentials for TLS: /,
    });
  }
});
