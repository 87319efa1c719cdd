/** `cowherd serve`: what a shell sees of it, its ends, and that no byte is lost when it is killed. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { runCowherd } from '../../support/both-tools.js';
import { NbdClient } from '../../support/nbd-client.js';
import { startServer } from '../../support/running-server.js';
import { cowherdProgram, needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const mebi = 1024 * 1024;
const kills = Number(process.env['COWHERD_TEST_RUNS'] ?? 5);

async function folderWithImage(t: TestContext, size = 16 * mebi): Promise<string> {
  const folder = await temporaryFolder(t);
  await createImage(path.join(folder, 'disk.qcow2'), { format: 'qcow2', size });
  return folder;
}

test('the plainest forms say where they serve, and end by a signal', async (t) => {
  const folder = await folderWithImage(t);
  const socket = path.join(folder, 'disk.sock');
  for (const [words, expected, signal] of [
    [
      ['--nbd', 'unix:disk.sock', '--name', 'disk', 'disk.qcow2'],
      /^Serving at nbd\+unix:\/\/\/disk\?socket=disk\.sock$/,
      'SIGTERM',
    ],
    [
      ['--nbd', 'tcp:127.0.0.1:0', '--workers', '4', '-r', 'disk.qcow2'],
      /^Serving at nbd:\/\/127\.0\.0\.1:\d+\/$/,
      'SIGINT',
    ],
    [['-k', 'disk.sock', '-t', '-e', '2', 'disk.qcow2'], /socket=disk\.sock$/, 'SIGHUP'],
    [['-b', '127.0.0.1', '-p', '0', 'disk.qcow2'], /^Serving at nbd:\/\/127/, 'SIGTERM'],
  ] as const) {
    const { child, ended, lines, stderr } = await startServer(t, folder, words);
    assert.equal(lines.length, 1);
    assert.match(lines[0], expected);
    child.kill(signal);
    assert.equal(await ended, 0, stderr());
    assert.equal(stderr(), '');
    assert.ok(!existsSync(socket), 'its socket is removed');
  }
});

test('clients of other makes work, and everything they wrote is there', async (t) => {
  if (!needsTool(t, 'qemu-img') || !needsTool(t, 'qemu-io')) return;
  const folder = await folderWithImage(t);
  const { child, ended, lines } = await startServer(t, folder, [
    ...['--nbd', 'unix:s', '--workers', '2', '--stats', '--cache', 'writeback', 'disk.qcow2'],
  ]);
  const [url] = /nbd\S+/.exec(lines[0])!;
  const io = [
    '-c',
    'write -P 3 1M 3M',
    '-c',
    'write -z 2M 64k',
    '-c',
    'discard 0 1M',
    '-c',
    'flush',
  ];
  await runOk('qemu-io', ['-f', 'raw', ...io, url], { cwd: folder });
  const info = await runCowherd(['info', 'disk.qcow2'], folder);
  assert.equal(info.code, 1);
  assert.match(info.stderr, /lock/, 'nobody else may open it meanwhile');
  child.kill('SIGTERM');
  assert.equal(await ended, 0);
  await runOk('qemu-img', ['check', 'disk.qcow2'], { cwd: folder });
  const read = ['-c', 'read -P 3 1M 1M', '-c', 'read -P 0 2M 64k', '-c', 'read -P 3 3M 1M'];
  await runOk('qemu-io', [...read, 'disk.qcow2'], { cwd: folder });
});

test('what was flushed on any connection survives a kill', async (t) => {
  const folder = await folderWithImage(t);
  const socket = path.join(folder, 's');
  for (let round = 1; round <= kills; round++) {
    const { child, ended } = await startServer(t, folder, [
      ...['--nbd', 'unix:s', '--workers', '2', 'disk.qcow2'],
    ]);
    const [one, other] = await Promise.all([
      NbdClient.connect(socket),
      NbdClient.connect(socket, { style: 'extended' }),
    ]);
    const writes = Array.from({ length: 16 }, (_, index) =>
      (index % 2 === 0 ? one : other).write(index * 100_000, Buffer.alloc(70_000, round)),
    );
    await Promise.all(writes);
    assert.equal((await one.flush()).error, 0);
    const after = [1, 2, 3].map((index) =>
      other.write(8 * mebi + index * mebi, Buffer.alloc(mebi, 77)),
    );
    for (const each of after) each.catch(() => undefined);
    child.kill('SIGKILL');
    assert.equal(await ended, 'SIGKILL');
    const image = await openImage(path.join(folder, 'disk.qcow2'));
    const bytes = Buffer.alloc(70_000);
    for (let index = 0; index < 16; index++) {
      await image.read(bytes, index * 100_000);
      assert.ok(bytes.equals(Buffer.alloc(70_000, round)), `write ${index} of round ${round}`);
    }
    assert.equal((await image.check()).corruptions, 0);
    await image.close();
    assert.ok(
      existsSync(socket),
      'it had no time to remove its socket, which the next one replaces',
    );
  }
});

test('once: it ends when the last client has gone', async (t) => {
  const folder = await folderWithImage(t);
  const { ended } = await startServer(t, folder, [
    ...['--nbd', 'unix:s', '--once', '--pid-file', 'pid', 'disk.qcow2'],
  ]);
  assert.match(await readFile(path.join(folder, 'pid'), 'utf8'), /^\d+\n$/);
  const client = await NbdClient.connect(path.join(folder, 's'));
  await client.close();
  assert.equal(await ended, 0);
  assert.ok(!existsSync(path.join(folder, 'pid')));
});

test('who asks by a signal is told what the queues do, and so is who looks at the end', async (t) => {
  const folder = await folderWithImage(t);
  const { child, ended, stderr } = await startServer(t, folder, [
    '--nbd',
    'unix:s',
    '--stats',
    'disk.qcow2',
  ]);
  let printed = '';
  child.stdout!.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const client = await NbdClient.connect(path.join(folder, 's'));
  await client.write(0, Buffer.alloc(4096, 1));
  child.kill('SIGUSR1');
  while (!stderr().includes('\n')) await new Promise((resolve) => setTimeout(resolve, 20));
  const told = JSON.parse(stderr()) as { image: string; total: { bytesWritten: number } };
  assert.equal(told.image, 'disk.qcow2');
  assert.equal(told.total.bytesWritten, 4096);
  await client.close();
  child.kill();
  assert.equal(await ended, 0);
  assert.match(printed, /^Queues of 'disk\.qcow2':\n *queue +reads +writes/m);
});

test('a socket that somebody else listens at', async (t) => {
  const folder = await folderWithImage(t);
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  const { fd } = (listener as unknown as { _handle: { fd: number } })._handle;
  const script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"';
  const child = spawn(
    'sh',
    ['-c', script, 'sh', process.execPath, cowherdProgram, 'serve', 'disk.qcow2'],
    { cwd: folder, stdio: ['ignore', 'pipe', 'inherit', fd] },
  );
  t.after(() => child.kill('SIGKILL'));
  // From here on only the server accepts there.
  listener.close();
  await once(child.stdout!, 'data');
  const client = await NbdClient.connect(port);
  assert.equal((await client.read(0, 512)).error, 0);
  await client.close();
  child.kill();
  await once(child, 'close');
});

test('several images by their names, raw and read-only ones too', async (t) => {
  const folder = await folderWithImage(t);
  await writeFile(path.join(folder, 'b.raw'), Buffer.alloc(mebi, 0x42));
  const { child, ended, lines } = await startServer(t, folder, [
    ...['--nbd', 'unix:s', '-r', '-D', 'the first', 'disk.qcow2', 'b.raw'],
  ]);
  assert.equal(lines.length, 2);
  const client = await NbdClient.connect(path.join(folder, 's'), { name: 'b.raw' });
  assert.equal(client.size, mebi);
  assert.deepEqual((await client.read(1000, 3)).data, Buffer.alloc(3, 0x42));
  await client.close();
  child.kill();
  assert.equal(await ended, 0);
});

test('a connection that goes wrong is one line, and the server goes on', async (t) => {
  const folder = await folderWithImage(t);
  const socket = path.join(folder, 's');
  const { child, ended, stderr } = await startServer(t, folder, ['--nbd', 'unix:s', 'disk.qcow2']);
  const bad = connect(socket);
  bad.write(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  bad.resume();
  await once(bad, 'close');
  const client = await NbdClient.connect(socket);
  assert.equal((await client.read(0, 512)).error, 0);
  await client.close();
  child.kill();
  assert.equal(await ended, 0);
  assert.equal(
    stderr(),
    'cowherd: a connection was closed: the client has flags that nobody knows\n',
  );
});

test('what cannot be served is refused in one line', async (t) => {
  const folder = await folderWithImage(t);
  await writeFile(path.join(folder, 'file'), 'something of somebody');
  const refused = async (words: readonly string[], expected: RegExp): Promise<void> => {
    const { code, stdout, stderr } = await runCowherd(['serve', ...words], folder);
    assert.equal(code, 1, stderr);
    assert.equal(stdout, '');
    assert.match(stderr, expected);
  };
  const line = (text: string): RegExp =>
    new RegExp(`^cowherd(?: serve)?: ${text}\n(Try [^\n]*\n)?$`);
  await refused(['disk.qcow2'], line('Expecting an address to serve at, such as [^\n]*'));
  await refused(['--nbd', 'unix:s'], line('Expecting at least one image file name'));
  await refused(['--nbd', 'x', 'disk.qcow2'], line("Invalid address 'x': [^\n]*"));
  await refused(['--nbd', 'unix:s', 'none.qcow2'], line("Could not open 'none.qcow2': [^\n]*"));
  await refused(
    ['--nbd', 'unix:file', 'disk.qcow2'],
    line("Could not listen at 'unix:file': Address already in use"),
  );
  await refused(
    ['--nbd', 'unix:s', '--workers', '0', 'disk.qcow2'],
    line('Invalid number of workers [^\n]*'),
  );
  await refused(
    ['--nbd', 'unix:s', '--workers', '65', 'disk.qcow2'],
    line('Invalid number of workers[^\n]*'),
  );
  await refused(['--nbd', 'unix:s', '-x', 'a', '-x', 'b', 'disk.qcow2'], line('More names [^\n]*'));
  await refused(
    ['--nbd', 'unix:s', '--cache', 'much', 'disk.qcow2'],
    line("Invalid cache mode `much'"),
  );
  await refused(
    ['--nbd', 'unix:s', '--pid-file', 'no/pid', 'disk.qcow2'],
    line("Failed to create pid file 'no/pid': [^\n]*"),
  );
  await refused(
    ['--nbd', 'unix:s', '--pid-file', 'file', 'disk.qcow2'],
    line("Failed to create pid file 'file': File exists"),
  );
  await runOk('mkfifo', [path.join(folder, 'fifo')]);
  await refused(
    ['--nbd', 'unix:s', '--pid-file', 'fifo', 'disk.qcow2'],
    line("Failed to create pid file 'fifo': File exists"),
  );
  assert.equal(await readFile(path.join(folder, 'file'), 'utf8'), 'something of somebody');
  assert.ok(!existsSync(path.join(folder, 's')));
});

test('--snapshot keeps what is written away from the image, and --discard=ignore keeps clusters', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await folderWithImage(t);
  await runOk('qemu-io', ['-c', 'write -P 5 0 1M', 'disk.qcow2'], { cwd: folder });
  const before = await readFile(path.join(folder, 'disk.qcow2'));
  const snapshot = await startServer(t, folder, ['-k', 's', '--snapshot', 'disk.qcow2']);
  const [url] = /nbd\S+/.exec(snapshot.lines[0])!;
  const io = ['-c', 'write -P 7 0 64k', '-c', 'read -P 7 0 64k', '-c', 'read -P 5 64k 64k'];
  await runOk('qemu-io', ['-f', 'raw', ...io, url], { cwd: folder });
  snapshot.child.kill('SIGTERM');
  assert.equal(await snapshot.ended, 0);
  assert.ok(before.equals(await readFile(path.join(folder, 'disk.qcow2'))));
  for (const [mode, fill] of [
    ['ignore', 5],
    ['unmap', 0],
  ] as const) {
    const server = await startServer(t, folder, ['-k', 's', '--discard', mode, 'disk.qcow2']);
    await runOk('qemu-io', ['-f', 'raw', '-c', 'discard 0 1M', url], { cwd: folder });
    server.child.kill('SIGTERM');
    assert.equal(await server.ended, 0);
    await runOk('qemu-io', ['-c', `read -P ${fill} 0 1M`, 'disk.qcow2'], { cwd: folder });
  }
});

test('--fork goes on in the background, or tells why not', async (t) => {
  const folder = await folderWithImage(t);
  const options = { cwd: folder };
  const words = ['serve', '--fork', '--pid-file', 'pid', '--cpus', '0', '-k', 's', 'disk.qcow2'];
  const { code, stdout, stderr } = await run(process.execPath, [cowherdProgram, ...words], options);
  assert.deepEqual([code, stdout, stderr], [0, 'Serving at nbd+unix:///?socket=s\n', '']);
  const pid = Number(await readFile(path.join(folder, 'pid'), 'utf8'));
  t.after(() => {
    if (existsSync(path.join(folder, 'pid'))) process.kill(pid, 'SIGKILL');
  });
  const client = await NbdClient.connect(path.join(folder, 's'));
  await client.close();
  process.kill(pid, 'SIGTERM');
  for (let turns = 0; existsSync(path.join(folder, 'pid')); turns++) {
    assert.ok(turns < 500, 'it ends');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const failed = await run(
    process.execPath,
    [cowherdProgram, 'serve', '--fork', '-k', 's', 'absent.qcow2'],
    options,
  );
  assert.equal(failed.code, 1);
  assert.match(failed.stderr, /^cowherd: Could not open 'absent.qcow2': .+\n$/);
});

test('processors that there are not, and modes, are refused in one line', async (t) => {
  const folder = await folderWithImage(t);
  for (const [words, why] of [
    [['--cpus', '4000'], 'Cannot run on processor 4000: Invalid argument'],
    [['--cpus', '1-0'], "Invalid list of processors '1-0'"],
    [['--cpus', 'all'], "Invalid list of processors 'all'"],
    [['--discard', 'maybe'], "Invalid discard mode 'maybe'"],
    [['--poll', '-1'], "Invalid time to poll specified: '-1'. Must be between 0 and 1000000."],
  ] as const) {
    const { code, stderr } = await runCowherd(['serve', ...words, '-k', 's', 'disk.qcow2'], folder);
    assert.deepEqual([code, stderr], [1, `cowherd: ${why}\n`]);
  }
});
