/** Exports of NBD servers as files: of our own server, of QEMU's, and of servers that do what none should. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { type Server, connect, createServer } from 'node:net';
import path from 'node:path';
import { type TestContext, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { serve } from '../../../src/export/serve.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { storageConformance } from '../../../src/storage/conformance/conformance.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import type { StorageFile } from '../../../src/storage/storage.js';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const mebi = 1024 * 1024;

/** Serves a raw file by our own server. */
async function serveOwn(
  t: TestContext,
  file: string,
  socket: string,
): Promise<() => Promise<void>> {
  const image = await openImage(file, { format: 'raw' });
  const server = await serve([{ image }], { nbd: `unix:${socket}`, workers: 1 });
  let ended: Promise<void> | undefined;
  const end = (): Promise<void> => (ended ??= server.close().finally(() => image.close()));
  t.after(end);
  return end;
}

async function isServed(socket: string): Promise<boolean> {
  const client = connect(socket);
  // It rejects with an error of the socket.
  const isConnected = await once(client, 'connect').then(
    () => true,
    () => false,
  );
  client.destroy();
  return isConnected;
}

/** Serves a file by qemu-nbd. */
async function serveQemu(
  t: TestContext,
  file: string,
  socket: string,
  words: readonly string[] = [],
): Promise<() => Promise<void>> {
  const child = spawn('qemu-nbd', ['-k', socket, '-t', '-e', '8', '-f', 'raw', ...words, file]);
  const closed = once(child, 'close');
  // It makes the socket before it listens there.
  while (!(await isServed(socket)))
    await Promise.race([wait(10), closed.then(() => assert.fail())]);
  let ended: Promise<unknown> | undefined;
  const end = async (): Promise<void> => {
    child.kill();
    await (ended ??= closed);
  };
  t.after(end);
  return end;
}

for (const [who, start] of [
  ['our own server', serveOwn],
  ['qemu-nbd', serveQemu],
] as const) {
  test(`an export of ${who} keeps what storage files promise`, async (t) => {
    if (start === serveQemu && !needsTool(t, 'qemu-nbd')) return;
    const folder = await temporaryFolder(t);
    let count = 0;
    let end: (() => Promise<void>) | undefined;
    const create = async (content: Uint8Array): Promise<StorageFile> => {
      await end?.();
      count += 1;
      const file = path.join(folder, `${count}.raw`);
      const socket = path.join(folder, `${count}.sock`);
      await writeFile(file, content);
      end = await start(t, file, socket);
      return await openStorageFile(`nbd+unix:///?socket=${socket}`, {});
    };
    for (const { name, run } of storageConformance({ create, resizing: false })) {
      await t.test(name, run);
    }
  });
}

describe('the command', () => {
  test('copies into exports and out of them, several queues at a time', async (t) => {
    if (!needsTool(t, 'qemu-nbd') || !needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const source = Buffer.alloc(48 * mebi);
    for (let at = 0; at < source.length; at += 3 * mebi) source.fill(1 + (at >> 20), at, at + mebi);
    await writeFile(path.join(folder, 'source.raw'), source);
    for (const [index, start] of [serveOwn, serveQemu].entries()) {
      const target = path.join(folder, `target${index}.raw`);
      const socket = path.join(folder, `s${index}`);
      await writeFile(target, Buffer.alloc(source.length, 0xee));
      const end = await start(t, target, socket);
      const uri = `nbd+unix:///?socket=${socket}`;
      const command = async (...words: readonly string[]): Promise<string> => {
        const { code, stdout, stderr } = await runCowherd(words, folder);
        assert.equal(code, 0, stderr);
        return stdout;
      };
      await command('convert', '-n', '-O', 'raw', 'source.raw', uri);
      await command('compare', 'source.raw', uri);
      await command('convert', '-O', 'qcow2', '--queues', '2', uri, 'copy.qcow2');
      await command('convert', '-O', 'raw', '-m', '4', uri, 'copy.raw');
      assert.match(await command('info', uri), /virtual size: 48 MiB/);
      assert.match(await command('map', uri), /^Offset/);
      assert.ok((await readFile(target)).equals(source));
      // An image in the export, whose old bytes are no part of it.
      await command('convert', '-O', 'qcow2', '-c', 'source.raw', uri);
      await command('check', '-f', 'qcow2', uri);
      await command('compare', '-F', 'qcow2', 'source.raw', uri);
      await end();
      await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', target, 'source.raw'], {
        cwd: folder,
      });
      assert.ok((await readFile(path.join(folder, 'copy.raw'))).equals(source));
      await runOk('qemu-img', ['check', 'copy.qcow2'], { cwd: folder });
      await runOk('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', 'copy.qcow2', 'source.raw'], {
        cwd: folder,
      });
    }
  });

  test('names what is wrong in one line', async (t) => {
    if (!needsTool(t, 'qemu-nbd')) return;
    const folder = await temporaryFolder(t);
    await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(mebi));
    const socket = path.join(folder, 's');
    await serveQemu(t, path.join(folder, 'disk.raw'), socket, ['-r', '-x', 'disk']);
    const refused = async (words: readonly string[], expected: RegExp): Promise<void> => {
      const { code, stderr } = await runCowherd(words, folder);
      assert.equal(code, 1);
      assert.match(stderr, expected);
      assert.match(stderr, /^cowherd: [^\n]*\n$/);
    };
    const uri = `nbd+unix:///disk?socket=${socket}`;
    await refused(['info', `nbd+unix:///other?socket=${socket}`], /no export of that name/);
    await refused(['info', 'nbd+unix:///?socket=none'], /No such file or directory/);
    await refused(['info', 'nbd+unix:///'], /names no socket/);
    await refused(['info', `nbd+unix:///?socket=/tmp/${'x'.repeat(103)}`], /at most 107 bytes/);
    await refused(['info', 'nbd://127.0.0.1:1/'], /Connection refused/);
    await refused(['convert', '-n', '-O', 'raw', 'disk.raw', uri], /to be read only/);
    await refused(['create', '-f', 'raw', uri, '1M'], /to be read only/);
  });
});

/** A server that sends the same bytes to whoever comes, and then nothing, or its end. */
async function startLiar(
  t: TestContext,
  socket: string,
  answer: Uint8Array,
  closes: boolean,
): Promise<Server> {
  const server = createServer((client) => {
    client.on('error', () => undefined);
    client.resume();
    client.write(answer);
    if (closes) client.end();
    t.after(() => client.destroy());
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.after(() => server.close());
  return server;
}

/** What a server says to a client that reads 64 KiB: greeting, replies to its options, the bytes. */
function validAnswers(): Buffer {
  const number = (bytes: number, value: number): Buffer => {
    const buffer = Buffer.alloc(bytes);
    buffer.writeUIntBE(value, Math.max(0, bytes - 6), Math.min(6, bytes));
    return buffer;
  };
  const magic = Buffer.from([0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9]);
  const reply = (option: number, type: number, data: Buffer): Buffer =>
    Buffer.concat([magic, number(4, option), number(4, type), number(4, data.length), data]);
  const none = Buffer.alloc(0);
  const context = Buffer.concat([number(4, 1), Buffer.from('base:allocation')]);
  const info = Buffer.concat([number(2, 0), number(8, mebi), number(2, 0x125)]);
  const chunk = (type: number, cookie: number, data: Buffer): Buffer =>
    Buffer.concat([
      number(4, 0x668e33ef),
      number(2, 1),
      number(2, type),
      number(8, cookie),
      number(4, data.length),
      data,
    ]);
  return Buffer.concat([
    Buffer.from('NBDMAGICIHAVEOPT'),
    number(2, 3),
    reply(8, 1, none),
    reply(10, 4, context),
    reply(10, 1, none),
    reply(7, 3, info),
    reply(7, 1, none),
    chunk(1, 1, Buffer.concat([number(8, 4096), Buffer.alloc(65_536, 7)])),
    chunk(5, 2, Buffer.concat([number(4, 1), number(4, mebi), number(4, 3)])),
  ]);
}

test('a server that goes away ends what is under way, in one line', async (t) => {
  const folder = await temporaryFolder(t);
  const socket = path.join(folder, 's');
  await startLiar(t, socket, validAnswers().subarray(0, -(28 + 65_536 + 32)), true);
  const nbd = { reconnectSeconds: 0 };
  const file = await openStorageFile(`nbd+unix:///?socket=${socket}`, { readOnly: true, nbd });
  const reads = [1, 2, 3].map((index) => file.read(new Uint8Array(512), index * 512));
  for (const read of reads) {
    await assert.rejects(read, {
      code: 'ERR_COWHERD_IO',
      message: /^Could not read from 'nbd[^\n]*' at byte \d+: [^\n]*closed the connection$/,
    });
  }
  await assert.rejects(file.read(new Uint8Array(512), 0), { code: 'ERR_COWHERD_IO' });
  await file.close();
});

/** An image that is served until `stop`; what it had not flushed is lost if that says so. */
async function serveAgain(file: string, socket: string): Promise<{ stop: () => Promise<void> }> {
  const image = await openImage(file, { format: 'raw' });
  const server = await serve([{ image }], { nbd: `unix:${socket}`, workers: 1 });
  return {
    stop: async () => {
      await server.close();
      await image.close();
    },
  };
}

test('a server that comes back is found again, and what was under way is done', async (t) => {
  const folder = await temporaryFolder(t);
  const [disk, socket] = [path.join(folder, 'disk'), path.join(folder, 's')];
  await createImage(disk, { format: 'raw', size: 1 << 20 });
  let server = await serveAgain(disk, socket);
  const file = await openStorageFile(`nbd+unix:///?socket=${socket}`, {});
  const queue = file.openQueue();
  const blocks = Array.from({ length: 64 }, (_, index) => new Uint8Array(4096).fill(index + 1));
  const write = (index: number): Promise<void> =>
    (index % 2 === 0 ? file : queue).write(blocks[index], index * 4096);
  for (let round = 0; round < 4; round++) {
    const writes = blocks
      .slice(round * 16, round * 16 + 16)
      .map((_, index) => write(round * 16 + index));
    const stopped = server.stop();
    await stopped;
    server = await serveAgain(disk, socket);
    await Promise.all(writes);
    const found = new Uint8Array(4096);
    await queue.read(found, round * 65_536);
    assert.deepEqual(found, blocks[round * 16]);
  }
  await queue.close();
  await file.close();
  await server.stop();
  const content = await readFile(disk);
  blocks.forEach((block, index) => {
    assert.ok(content.subarray(index * 4096, (index + 1) * 4096).equals(block), `block ${index}`);
  });
});

test('a flush fails once the server has gone with what it had not flushed', async (t) => {
  const folder = await temporaryFolder(t);
  const [disk, socket] = [path.join(folder, 'disk'), path.join(folder, 's')];
  await createImage(disk, { format: 'raw', size: 1 << 20 });
  let server = await serveAgain(disk, socket);
  const file = await openStorageFile(`nbd+unix:///?socket=${socket}`, {});
  const queue = file.openQueue();
  await queue.write(new Uint8Array(4096).fill(1), 0);
  await file.flush();
  await server.stop();
  server = await serveAgain(disk, socket);
  // Nothing was lost: all of it was flushed.
  await file.write(new Uint8Array(4096).fill(2), 4096);
  await queue.flush();
  await file.write(new Uint8Array(4096).fill(3), 8192);
  await server.stop();
  server = await serveAgain(disk, socket);
  await queue.read(new Uint8Array(512), 0);
  for (const each of [file, queue]) {
    await assert.rejects(each.flush(), {
      code: 'ERR_COWHERD_IO',
      message: /the server has gone meanwhile, with what it had not flushed$/,
    });
  }
  await queue.close();
  await file.close();
  await server.stop();
});

test('a server that does not come back in time, or with another disk, is one line', async (t) => {
  const folder = await temporaryFolder(t);
  const [disk, socket] = [path.join(folder, 'disk'), path.join(folder, 's')];
  await createImage(disk, { format: 'raw', size: 1 << 20 });
  const server = await serveAgain(disk, socket);
  const name = `nbd+unix:///?socket=${socket}`;
  const file = await openStorageFile(name, { readOnly: true, nbd: { reconnectSeconds: 0.2 } });
  await server.stop();
  await assert.rejects(file.read(new Uint8Array(512), 0), { code: 'ERR_COWHERD_IO' });
  await createImage(disk, { format: 'raw', size: 2 << 20 });
  const other = await serveAgain(disk, socket);
  await assert.rejects(file.read(new Uint8Array(512), 0), {
    message: /the export has another size by now$/,
  });
  await file.close();
  await other.stop();
});
