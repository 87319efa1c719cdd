/** Images on web servers, through every command that reads. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { openPool } from '../../src/image/threads/pool.js';
import { runCowherd } from '../support/both-tools.js';
import { cowherdProgram, needsTool, runOk, temporaryFolder } from '../support/tools.js';
import { type Behaviour, type WebServer, startWebServer } from '../support/web-server.js';

const mebi = 1024 * 1024;

/** A folder with `local.qcow2`, which a server serves. */
async function serveImage(
  t: TestContext,
  size: number,
  writes: readonly (readonly [offset: number, length: number])[],
  behaviour: Behaviour = {},
): Promise<{ folder: string; server: WebServer }> {
  const folder = await temporaryFolder(t);
  const local = path.join(folder, 'local.qcow2');
  await createImage(local, { format: 'qcow2', size });
  const image = await openImage(local);
  for (const [offset, length] of writes) {
    const bytes = Uint8Array.from({ length }, (_, index) => (offset + index * 7) & 0xff);
    await image.write(bytes, offset);
  }
  await image.close();
  return { folder, server: await startWebServer(t, await readFile(local), behaviour) };
}

function sentBytes({ served }: WebServer): number {
  return served.reduce((sum, { sent }) => sum + sent, 0);
}

test('info of a large remote image fetches less than 1 MiB', async (t) => {
  const pieces = Array.from({ length: 64 }, (_, index) => [index * 32 * mebi, mebi] as const);
  const { folder, server } = await serveImage(t, 2048 * mebi, pieces);
  const { stdout, code } = await runCowherd(['info', '--output=json', server.url], folder);
  assert.equal(code, 0);
  const info = JSON.parse(stdout) as Record<string, unknown>;
  assert.equal(info['virtual-size'], 2048 * mebi);
  assert.equal(info['format'], 'qcow2');
  assert.match(stdout, /"format": "http"/);
  assert.ok(sentBytes(server) < mebi, `${sentBytes(server)} bytes`);
  const text = await runCowherd(['info', server.url], folder);
  assert.match(text.stdout, /^disk size: unavailable$/m);
  assert.match(text.stdout, /^ {4}protocol type: http$/m);
});

test('every command that reads takes a URL', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const { folder, server } = await serveImage(t, 64 * mebi, [
    [0, 100_000],
    [5 * mebi + 777, 3 * mebi],
    [60 * mebi, 4 * mebi],
  ]);
  await runOk('qemu-img', ['convert', '-O', 'raw', 'local.qcow2', 'expected.raw'], { cwd: folder });
  const expected = await readFile(path.join(folder, 'expected.raw'));
  const { url } = server;
  for (const words of [
    ['convert', '-O', 'raw', url, 'out'],
    ['convert', '-O', 'qcow2', url, 'out'],
    ['convert', '-O', 'qcow2', '-c', '-m', '4', url, 'out'],
    ['convert', '-O', 'qcow2', '-W', '-m', '4', url, 'out'],
    [
      'convert',
      '-O',
      'raw',
      '--image-opts',
      `driver=qcow2,file.driver=http,file.url=${url}`,
      'out',
    ],
  ]) {
    const { code, stderr } = await runCowherd(words, folder);
    assert.equal(code, 0, stderr);
    await runOk('qemu-img', ['compare', '-s', 'expected.raw', 'out'], { cwd: folder }).catch(
      async () => {
        // -s is strict about allocation too.
        await runOk('qemu-img', ['compare', 'expected.raw', 'out'], { cwd: folder });
      },
    );
  }
  const same = await runCowherd(['compare', url, 'expected.raw'], folder);
  assert.equal(same.code, 0, same.stderr);
  const map = await runCowherd(['map', '--output=json', url], folder);
  const local = await runCowherd(['map', '--output=json', 'local.qcow2'], folder);
  assert.equal(map.stdout, local.stdout);
  const check = await runCowherd(['check', url], folder);
  assert.equal(check.code, 0, check.stderr);
  const bare = `driver=http,url=${url},readahead=1M,timeout=5,sslverify=on`;
  assert.equal((await runCowherd(['info', '--image-opts', bare], folder)).code, 0);

  const pool = await openPool(url, { readOnly: true, queues: 2 });
  t.after(() => pool.close());
  const bytes = new Uint8Array(3 * mebi);
  await pool.read(bytes, 5 * mebi);
  assert.equal(Buffer.compare(bytes, expected.subarray(5 * mebi, 8 * mebi)), 0);
});

test('an image above a URL, and names that images on servers give', async (t) => {
  const { folder, server } = await serveImage(t, 16 * mebi, [[mebi, 2 * mebi]]);
  const above = path.join(folder, 'above.qcow2');
  await createImage(above, {
    format: 'qcow2',
    backingFile: server.url,
    backingFormat: 'qcow2',
  });
  const same = await runCowherd(['compare', 'above.qcow2', 'local.qcow2'], folder);
  assert.equal(same.code, 0, same.stderr);
  const untrusted = await runCowherd(['map', '--untrusted', 'above.qcow2'], folder);
  assert.notEqual(untrusted.code, 0);
  // A relative name is relative to the server's folder.
  await createImage(above, {
    format: 'qcow2',
    size: 16 * mebi,
    backingFile: 'disk',
    backingFormat: 'qcow2',
    backingUnchecked: true,
  });
  const base = server.content;
  const other = await readFile(above);
  server.behaviour = {
    instead: (request) => {
      server.content = request.url?.endsWith('/above.qcow2') === true ? other : base;
      return false;
    },
  };
  const url = server.url.replace(/disk$/, 'above.qcow2');
  const chain = await runCowherd(['compare', url, 'local.qcow2'], folder);
  assert.equal(chain.code, 0, chain.stderr);
});

test('a server without ranges: a raw disk is converted, tables are refused in one line', async (t) => {
  const { folder, server } = await serveImage(t, 4 * mebi, [[mebi, 2 * mebi]], { ranges: false });
  const raw = Uint8Array.from({ length: 50 * mebi }, (_, index) => (index >> 12) & 0xff);
  await writeFile(path.join(folder, 'expected.raw'), raw);
  server.content = raw;
  const { code, stderr } = await runCowherd(
    ['convert', '-O', 'qcow2', server.url, 'out.qcow2'],
    folder,
  );
  assert.equal(code, 0, stderr);
  const same = await runCowherd(['compare', 'out.qcow2', 'expected.raw'], folder);
  assert.equal(same.code, 0, same.stderr);
  // The same once more, backwards: what comes first in the disk lies last in the file.
  const top = path.join(folder, 'backwards.qcow2');
  await createImage(top, { format: 'qcow2', size: 80 * mebi });
  const image = await openImage(top);
  const bytes = new Uint8Array(mebi).fill(7);
  for (let at = 79; at >= 0; at--) await image.write(bytes, at * mebi);
  await image.close();
  server.content = await readFile(top);
  // One piece at a time: several could happen to wait for the right parts of the file together.
  const convert = ['convert', '-m', '1', '-O', 'raw', server.url, 'no.raw'];
  const refusal = await runCowherd(convert, folder);
  assert.equal(refusal.code, 1);
  assert.match(refusal.stderr, /^[^\n]*can only be read from its begin to its end[^\n]*\n$/);
});

test('a signal ends what waits for a server, and leaves nothing', async (t) => {
  const { folder, server } = await serveImage(t, 64 * mebi, [[0, 32 * mebi]]);
  for (const answers of [0, 5]) {
    server.served.length = 0;
    server.behaviour = { instead: (_request, _response, count) => count > answers };
    const child = spawn(
      process.execPath,
      [cowherdProgram, 'convert', '-O', 'qcow2', server.url, 'out.qcow2'],
      { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    while (server.served.length <= answers) await wait(20);
    await wait(300);
    const asked = performance.now();
    child.kill('SIGINT');
    const [code] = (await once(child, 'close')) as [number];
    assert.equal(code, 130, stderr);
    assert.ok(performance.now() - asked < 2000, `${performance.now() - asked} ms`);
    assert.match(stderr, /^cowherd: [^\n]*\n$/);
    await assert.rejects(readFile(path.join(folder, 'out.qcow2')), { code: 'ENOENT' });
  }
});

test('what goes wrong on the way is one line, and leaves nothing', async (t) => {
  const { folder, server } = await serveImage(t, 16 * mebi, [[0, 8 * mebi]]);
  server.behaviour = {
    instead: (_request, response, count) => {
      if (count < 4) return false;
      response.writeHead(403);
      response.end();
      return true;
    },
  };
  const { code, stderr } = await runCowherd(
    ['convert', '-O', 'qcow2', server.url, 'out.qcow2'],
    folder,
  );
  assert.equal(code, 1);
  assert.match(stderr, /^cowherd: [^\n]*the server answered 403 Forbidden[^\n]*\n$/);
  await assert.rejects(readFile(path.join(folder, 'out.qcow2')), { code: 'ENOENT' });
  for (const name of ['https://', 'http://[', 'ftp://127.0.0.1/x']) {
    const refused = await runCowherd(['info', name], folder);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^cowherd: Could not open '[^\n]*\n$/);
  }
});
