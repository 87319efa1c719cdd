/** The NBD client behind TLS: with certificates, with shared keys, and never with a server that is another. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { serve } from '../../../src/export/serve.js';
import { openImage } from '../../../src/image/graph/open.js';
import { readTlsFolder } from '../../../src/export/nbd/tls.js';
import { runCowherd } from '../../support/both-tools.js';
import { makeCertificates } from '../../support/certificates.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const mebi = 1024 * 1024;

interface Served {
  readonly folder: string;
  readonly creds: string;
  /** Of the export's URI, behind `nbds+unix://` or `nbds://`. */
  readonly rest: string;
}

async function makeDisk(folder: string): Promise<string> {
  const file = path.join(folder, 'disk.raw');
  await writeFile(file, Buffer.alloc(4 * mebi, 7));
  return file;
}

/** Serves a disk of 4 MiB by our own server, by the credentials of `folder/creds`. */
async function serveOwn(t: TestContext, folder: string): Promise<Served> {
  const image = await openImage(await makeDisk(folder), { format: 'raw' });
  const socket = path.join(folder, 's');
  const creds = path.join(folder, 'creds');
  const server = await serve([{ image }], {
    nbd: `unix:${socket}`,
    workers: 2,
    tls: await readTlsFolder(creds),
  });
  t.after(() => server.close().finally(() => image.close()));
  return { folder, creds, rest: `nbds+unix:///?socket=${socket}` };
}

/** The same by qemu-nbd, at a port. */
async function serveQemu(t: TestContext, folder: string): Promise<Served> {
  const creds = path.join(folder, 'creds');
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const file = await makeDisk(folder);
  const child = spawn('qemu-nbd', [
    ...['--object', `tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir=${creds}`],
    ...['--tls-creds', 't', '-t', '-e', '8', '-f', 'raw', '-b', '127.0.0.1', '-p', String(port)],
    ...['--pid-file', path.join(folder, 'pid'), file],
  ]);
  const closed = once(child, 'close');
  t.after(async () => {
    child.kill();
    await closed;
  });
  return { folder, creds, rest: `nbds://127.0.0.1:${port}` };
}

async function refused(words: readonly string[], expected: RegExp): Promise<void> {
  const { code, stderr } = await runCowherd(words, tmpdir());
  assert.equal(code, 1, stderr);
  assert.match(stderr, expected);
  assert.match(stderr, /^cowherd: [^\n]*\n$/);
}

for (const [who, start] of [
  ['our own server', serveOwn],
  ['qemu-nbd', serveQemu],
] as const) {
  test(`certificates, and ${who}`, async (t) => {
    if (!needsTool(t, 'openssl', 'qemu-img', 'qemu-nbd')) return;
    const folder = await temporaryFolder(t);
    await makeCertificates(folder);
    const { creds, rest } = await start(t, folder);
    const uri = `${rest}${rest.includes('?') ? '&' : '/?'}tls-certificates=${creds}`;
    const copy = path.join(folder, 'copy.qcow2');
    let result = await runCowherd(['convert', '-O', 'qcow2', '--queues', '2', uri, copy], folder);
    for (
      let attempt = 0;
      result.stderr.includes('Connection refused') && attempt < 100;
      attempt++
    ) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      result = await runCowherd(['convert', '-O', 'qcow2', '--queues', '2', uri, copy], folder);
    }
    assert.equal(result.code, 0, result.stderr);
    await runOk('qemu-img', ['compare', path.join(folder, 'disk.raw'), copy]);
    await runCowherd(['convert', '-n', '-O', 'raw', copy, uri], folder);
    // Signed by an authority that is not ours, without a certificate of our own, in the clear.
    await refused(['info', rest], /TLS failed: /);
    const bare = path.join(folder, 'bare');
    await mkdir(bare);
    await runOk('cp', [path.join(creds, 'ca-cert.pem'), bare]);
    const other = uri.replace(`tls-certificates=${creds}`, `tls-certificates=${bare}`);
    await refused(['info', other], /Could not open/);
    await refused(['info', `${uri}&tls-hostname=other.example`], /TLS failed: .*other\.example/);
    await refused(['info', rest.replace('nbds', 'nbd')], /demands TLS|TLS/);
  });
}

test('credentials by objects, as the real tools have them', async (t) => {
  if (!needsTool(t, 'openssl', 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await makeCertificates(folder);
  const { creds } = await serveOwn(t, folder);
  const object = (rest: string): readonly string[] => ['--object', `tls-creds-x509,${rest}`];
  const client = object(`id=t0,endpoint=client,verify-peer=on,dir=${creds}`);
  const disk = `driver=nbd,server.type=unix,server.path=${folder}/s,tls-creds=t0,tls-hostname=localhost`;
  const copy = path.join(folder, 'copy');
  for (const words of [
    ['info', '--image-opts', disk],
    ['convert', '--image-opts', '-O', 'qcow2', disk, copy],
    [
      'convert',
      '-n',
      '--target-image-opts',
      copy,
      `driver=raw,file.${disk.replaceAll(',', ',file.')}`,
    ],
  ]) {
    const { code, stderr } = await runCowherd([words[0], ...client, ...words.slice(1)], folder);
    assert.equal(code, 0, stderr);
  }
  const info = (given: readonly string[]): readonly string[] => [
    'info',
    ...given,
    '--image-opts',
    disk,
  ];
  await refused(info(object(`id=t0,endpoint=server,dir=${creds}`)), /with a client endpoint/);
  await refused(
    info(object(`id=t0,dir=${creds},odd=1`)),
    /Property 'tls-creds-x509\.odd' not found/,
  );
  await refused(info(object(`dir=${creds}`)), /Parameter 'id' is missing/);
  await refused(info(['--object', 'iothread,id=s']), /are not supported/);
});

test('keys that are shared, by options', async (t) => {
  const folder = await temporaryFolder(t);
  for (const [name, key] of [
    ['creds', '00112233445566778899aabbccddeeff'],
    ['wrong', 'ffeeddccbbaa99887766554433221100'],
  ]) {
    await mkdir(path.join(folder, name));
    await writeFile(path.join(folder, name, 'keys.psk'), `other:00\nqemu:${key}\n`);
  }
  await serveOwn(t, folder);
  const disk = (name: string): string =>
    `driver=nbd,server.type=unix,server.path=${folder}/s,tls-creds=${path.join(folder, name)}`;
  const { code, stdout, stderr } = await runCowherd(
    ['info', '--image-opts', disk('creds')],
    folder,
  );
  assert.equal(code, 0, stderr);
  assert.match(stdout, /virtual size: 4 MiB/);
  await refused(['info', '--image-opts', disk('wrong')], /TLS failed: /);
  await refused(['info', '--image-opts', `${disk('creds')},tls-username=x`], /no key of 'x'/);
  await refused(['info', '--image-opts', disk('none')], /ca-cert\.pem': No such file or directory/);
});

test('a server that goes on before TLS has begun, or has none, is refused', async (t) => {
  const folder = await temporaryFolder(t);
  const image = await openImage(await makeDisk(folder), { format: 'raw' });
  const server = await serve([{ image }], { nbd: `unix:${folder}/s`, workers: 1 });
  t.after(() => server.close().finally(() => image.close()));
  await refused(['info', `nbds+unix:///?socket=${folder}/s`], /the server refuses it|not allow/);
});
