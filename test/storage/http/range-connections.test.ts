/** Ranges that come straight from a socket, however a server cuts its answer, and what else it may send. */
import assert from 'node:assert/strict';
import { type AddressInfo, type Socket, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { TransientFailure } from '../../../src/storage/http/failures.js';
import {
  type Outcome,
  RangeConnections,
  type RangeRequest,
} from '../../../src/storage/http/range-connections.js';

const content = Uint8Array.from(
  { length: 100_000 },
  (_, index) => (index * 7 + (index >> 8)) & 0xff,
);

interface TcpServer {
  readonly url: URL;
  connections: number;
  /** What is sent for a range, piece by piece; then the connection is closed if it says so. */
  answer: (start: number, end: number) => { pieces: readonly Uint8Array[]; closes?: boolean };
}

async function startTcpServer(t: TestContext): Promise<TcpServer> {
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    server.connections += 1;
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => undefined);
    socket.on('data', (data) => {
      const [, start, last] = /range: bytes=(\d+)-(\d+)/.exec(data.toString())!;
      const { pieces, closes } = server.answer(Number(start), Number(last) + 1);
      void (async () => {
        for (const piece of pieces) {
          await new Promise((sent) => socket.write(piece, sent));
          await new Promise((next) => setImmediate(next));
        }
        if (closes === true) socket.end();
      })();
    });
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  const url = new URL(`http://127.0.0.1:${port}/disk`);
  const server: TcpServer = { url, connections: 0, answer: () => ({ pieces: [] }) };
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    listener.close();
  });
  return server;
}

function plainAnswer(start: number, end: number, more: readonly string[] = []): Buffer {
  const head = [
    'HTTP/1.1 206 Partial Content',
    `Content-Range: bytes ${start}-${end - 1}/${content.length}`,
    `content-LENGTH:${end - start}  `,
    ...more,
  ];
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n`), content.subarray(start, end)]);
}

function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const sorted = [0, ...places.map((place) => place % bytes.length), bytes.length];
  sorted.sort((one, other) => one - other);
  return sorted.slice(1).map((end, index) => bytes.subarray(sorted[index], end));
}

interface Asked {
  readonly outcome: Outcome;
  readonly bytes: Uint8Array;
  readonly progress: number;
}

async function ask(
  connections: RangeConnections,
  url: URL,
  [start, end]: readonly [number, number],
  more: Partial<RangeRequest> = {},
): Promise<Asked> {
  const bytes = new Uint8Array(end - start);
  let progress = 0;
  const outcome = await connections.ask({
    url,
    headers: { range: `bytes=${start}-${end - 1}` },
    into: bytes,
    timeoutMs: 5000,
    signal: undefined,
    isExpected: (headers) => headers['content-range']?.startsWith(`bytes ${start}-`) === true,
    onProgress: (count) => {
      progress += count;
    },
    ...more,
  });
  return { outcome, bytes, progress };
}

function open(t: TestContext, most: number): RangeConnections {
  const connections = new RangeConnections(most);
  t.after(() => {
    connections.close();
  });
  return connections;
}

test('the bytes are right however the answer is cut, over connections that are kept', async (t) => {
  const server = await startTcpServer(t);
  const connections = open(t, 3);
  const range = fc
    .tuple(fc.nat(content.length - 1), fc.integer({ min: 1, max: 30_000 }))
    .map(([start, length]) => [start, Math.min(content.length, start + length)] as const);
  const places = fc.array(fc.oneof(fc.nat(200), fc.nat(30_000)), { maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 6 }), places, async (drawn, at) => {
      server.answer = (start, end) => ({ pieces: cut(plainAnswer(start, end), at) });
      await Promise.all(
        drawn.map(async ([start, end]) => {
          const { outcome, bytes, progress } = await ask(connections, server.url, [start, end]);
          assert.equal(outcome, 'complete');
          assert.equal(progress, end - start);
          assert.equal(Buffer.compare(bytes, content.subarray(start, end)), 0);
        }),
      );
    }),
    { numRuns: 100 },
  );
  assert.equal(server.connections, 3);
});

test('a connection that the server ends is not asked again', async (t) => {
  const server = await startTcpServer(t);
  const connections = open(t, 1);
  for (const [more, closes] of [
    [['Connection: close'], true],
    [['Connection: Close'], false],
    [[], true],
  ] as const) {
    const before = server.connections;
    server.answer = (start, end) => ({ pieces: [plainAnswer(start, end, more)], closes });
    for (let count = 1; count <= 3; count++) {
      const { outcome } = await ask(connections, server.url, [0, 1000]);
      // Its end may come after the next request was sent.
      if (more.length > 0) assert.equal(outcome, 'complete');
      if (outcome === 'broken') count -= 1;
      else assert.equal(outcome, 'complete');
    }
    assert.ok(server.connections >= before + 2);
  }
});

/** Answers that somebody else has to understand. */
const unknown: Readonly<Record<string, Uint8Array>> = Object.fromEntries(
  Object.entries({
    'the whole file': 'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n',
    'a redirection': 'HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n',
    'another length':
      'HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-99/100000\r\ncontent-length: 100\r\n\r\n',
    'two lengths':
      'HTTP/1.1 206 P\r\ncontent-range: bytes 0-999/100000\r\ncontent-length: 1000\r\ncontent-length: 10\r\n\r\n',
    'no length': 'HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-999/100000\r\n\r\n',
    'parts in chunks':
      'HTTP/1.1 206 P\r\ncontent-range: bytes 0-999/100000\r\ncontent-length: 1000\r\ntransfer-encoding: chunked\r\n\r\n',
    'packed bytes':
      'HTTP/1.1 206 P\r\ncontent-range: bytes 0-999/100000\r\ncontent-length: 1000\r\ncontent-encoding: gzip\r\n\r\n',
    'another range':
      'HTTP/1.1 206 P\r\ncontent-range: bytes 5-1004/100000\r\ncontent-length: 1000\r\n\r\n',
    'another file': 'HTTP/1.1 412 Precondition Failed\r\n\r\n',
    'an older protocol': 'HTTP/1.0 206 P\r\ncontent-length: 1000\r\n\r\n',
    'a header over two lines':
      'HTTP/1.1 206 P\r\ncontent-range: bytes 0-999/100000\r\n content-length: 1000\r\n\r\n',
    'something else altogether': '220 mail.example.org ESMTP\r\n\r\n',
    'a head without end': `HTTP/1.1 206 P\r\nx: ${'y'.repeat(20_000)}`,
  }).map(([what, head]) => [what, Buffer.concat([Buffer.from(head), content.subarray(0, 1000)])]),
);

for (const [what, answer] of Object.entries(unknown)) {
  test(`${what}: somebody else has to ask`, async (t) => {
    const server = await startTcpServer(t);
    const connections = open(t, 1);
    server.answer = () => ({ pieces: [answer] });
    const { outcome, bytes, progress } = await ask(connections, server.url, [0, 1000]);
    assert.equal(outcome, 'unknown');
    assert.equal(progress, 0);
    assert.deepEqual(bytes, new Uint8Array(1000));
    server.answer = (start, end) => ({ pieces: [plainAnswer(start, end)] });
    assert.equal((await ask(connections, server.url, [0, 1000])).outcome, 'complete');
    assert.equal(server.connections, 2, 'what else it sent is not read as an answer');
  });
}

test('more bytes than were asked for are not taken for the next answer', async (t) => {
  const server = await startTcpServer(t);
  const connections = open(t, 1);
  server.answer = (start, end) => ({
    pieces: [plainAnswer(start, end), Buffer.from('HTTP/1.1 206 P\r\n')],
  });
  const first = await ask(connections, server.url, [0, 50_000]);
  assert.equal(first.outcome, 'complete');
  assert.equal(Buffer.compare(first.bytes, content.subarray(0, 50_000)), 0);
  await new Promise((resolve) => setTimeout(resolve, 50));
  server.answer = (start, end) => ({ pieces: [plainAnswer(start, end)] });
  const { outcome, bytes } = await ask(connections, server.url, [5000, 6000]);
  assert.equal(outcome, 'complete');
  assert.equal(Buffer.compare(bytes, content.subarray(5000, 6000)), 0);
});

test('what breaks off, stops or is given up ends in bounded time', async (t) => {
  const server = await startTcpServer(t);
  const connections = open(t, 2);
  server.answer = (start, end) => ({
    pieces: [plainAnswer(start, end).subarray(0, 600)],
    closes: true,
  });
  await assert.rejects(ask(connections, server.url, [0, 1000]), /closed the connection too early/);
  server.answer = () => ({ pieces: [], closes: true });
  assert.equal((await ask(connections, server.url, [0, 1000])).outcome, 'broken');
  server.answer = () => ({ pieces: [] });
  const short = { timeoutMs: 50 };
  await assert.rejects(ask(connections, server.url, [0, 1000], short), /does not answer/);
  server.answer = (start, end) => ({ pieces: [plainAnswer(start, end).subarray(0, 600)] });
  await assert.rejects(ask(connections, server.url, [0, 1000], short), /stopped sending/);
  const abort = new AbortController();
  const given = ask(connections, server.url, [0, 1000], { signal: abort.signal });
  const waits = ask(connections, server.url, [0, 1000], { signal: abort.signal });
  setTimeout(() => {
    abort.abort(new Error('enough'));
  }, 30);
  await assert.rejects(given, /enough/);
  await assert.rejects(waits, /enough/);
  const nobody = new URL('http://127.0.0.1:1/disk');
  assert.equal((await ask(connections, nobody, [0, 10])).outcome, 'broken');
});

test('answers that say that there are no bytes are what others make of them', async (t) => {
  const server = await startTcpServer(t);
  const connections = open(t, 1);
  server.answer = () => ({
    pieces: [Buffer.from('HTTP/1.1 503 Busy\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n')],
  });
  await assert.rejects(ask(connections, server.url, [0, 10]), (error: unknown) => {
    assert.ok(error instanceof TransientFailure);
    assert.equal(error.waitMs, 3000);
    return error.message.includes('503 Busy');
  });
});

test('no header can end the head of a request', async (t) => {
  const server = await startTcpServer(t);
  const connections = open(t, 1);
  const headers = { range: 'bytes=0-9', 'x-y': 'z\r\nhost: elsewhere' };
  await assert.rejects(ask(connections, server.url, [0, 10], { headers }), {
    code: 'ERR_INVALID_CHAR',
  });
});
