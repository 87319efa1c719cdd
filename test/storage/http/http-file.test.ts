/** Files of web servers: what is read of them, what of them is fetched, and what servers may do wrong. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { CowherdError } from '../../../src/errors.js';
import type { HttpOptions } from '../../../src/storage/http-options.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import type { StorageFile } from '../../../src/storage/storage.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { type Behaviour, type WebServer, startWebServer } from '../../support/web-server.js';

const mebi = 1024 * 1024;

function contentOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 13 + (index >> 9)) & 0xff);
}

async function openOn(
  t: TestContext,
  { url }: Pick<WebServer, 'url'>,
  http: HttpOptions = { timeoutSeconds: 0.5 },
): Promise<StorageFile> {
  const file = await openStorageFile(url, { readOnly: true, http });
  t.after(() => file.close());
  return file;
}

async function readAt(file: StorageFile, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length).fill(0xee);
  await file.read(bytes, offset);
  return bytes;
}

test('reads give the bytes of the file, and zeroes beyond it', async (t) => {
  const content = contentOf(3 * mebi + 12_345);
  const server = await startWebServer(t, content);
  const file = await openOn(t, server);
  assert.equal(await file.size(), content.length);
  const padded = new Uint8Array(content.length + 1000 + 2 * mebi);
  padded.set(content);
  const reads = fc.array(
    fc.tuple(fc.nat(content.length + 1000), fc.oneof(fc.nat(3000), fc.nat(2 * mebi))),
    { minLength: 1, maxLength: 12 },
  );
  await fc.assert(
    fc.asyncProperty(reads, async (drawn) => {
      await Promise.all(
        drawn.map(async ([offset, length]) => {
          const bytes = await readAt(file, offset, length);
          const isSame = Buffer.compare(bytes, padded.subarray(offset, offset + length)) === 0;
          assert.ok(isSame, `${length} bytes at ${offset}`);
        }),
      );
    }),
    { numRuns: 40 },
  );
});

test('reads that follow one another are read ahead, and connections are kept', async (t) => {
  const server = await startWebServer(t, contentOf(8 * mebi));
  const file = await openOn(t, server);
  for (let offset = 0; offset < 8 * mebi; offset += 4096) await readAt(file, offset, 4096);
  assert.ok(server.served.length < 40, `${server.served.length} requests`);
  const sent = server.served.reduce((sum, each) => sum + each.sent, 0);
  assert.equal(sent, 8 * mebi, 'each byte is fetched once');
});

test('an empty file', async (t) => {
  const file = await openOn(t, await startWebServer(t, new Uint8Array(0)));
  assert.equal(await file.size(), 0);
  assert.deepEqual(await readAt(file, 0, 512), new Uint8Array(512));
});

/** What servers do now and then, and a reader gets over. */
const passing: Readonly<Record<string, NonNullable<Behaviour['instead']>>> = {
  'answers 503 twice': (_request, response, count) => {
    if (count < 2 || count > 3) return false;
    response.writeHead(503);
    response.end();
    return true;
  },
  'asks to wait a moment': (_request, response, count) => {
    if (count !== 2) return false;
    response.writeHead(429, { 'retry-after': '1' });
    response.end();
    return true;
  },
  'breaks a connection off before it answers': (request, _response, count) => {
    if (count !== 2) return false;
    request.socket.destroy();
    return true;
  },
  'breaks off in the middle of a body, again and again': (request, response, count) => {
    if (count < 2 || count > 4) return false;
    const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')!;
    const whole = contentOf(2 * mebi).subarray(Number(start), Number(end) + 1);
    response.writeHead(206, {
      'content-length': whole.length,
      'content-range': `bytes ${start}-${Number(start) + whole.length - 1}/${2 * mebi}`,
    });
    response.write(whole.subarray(0, 10_000), () => request.socket.destroy());
    return true;
  },
  'sends nothing for a while': (_request, _response, count) => count === 2,
};

for (const [what, instead] of Object.entries(passing)) {
  test(`a server that ${what} is asked again`, async (t) => {
    const content = contentOf(2 * mebi);
    const server = await startWebServer(t, content, { instead });
    const file = await openOn(t, server);
    const bytes = await readAt(file, 700_000, 300_000);
    assert.equal(Buffer.compare(bytes, content.subarray(700_000, 1_000_000)), 0);
    assert.ok(server.served.length > 2);
  });
}

/** What servers do, and no reader can get over: how a read then fails. */
const lasting: Readonly<Record<string, readonly [RegExp, NonNullable<Behaviour['instead']>]>> = {
  'has another file by now': [
    /has changed on the server/,
    (_request, response) => {
      response.writeHead(206, {
        'content-range': `bytes 700000-700511/${2 * mebi}`,
        'content-length': 512,
        etag: '"other"',
      });
      response.end(Buffer.alloc(512));
      return true;
    },
  ],
  'has a shorter file by now': [
    /has changed on the server/,
    (_request, response) => {
      response.writeHead(416, { 'content-range': 'bytes */100', etag: '"one"' });
      response.end();
      return true;
    },
  ],
  'sends another part': [
    /another range than was asked for/,
    (_request, response) => {
      response.writeHead(206, {
        'content-range': `bytes 0-511/${2 * mebi}`,
        'content-length': 512,
        etag: '"one"',
      });
      response.end(Buffer.alloc(512));
      return true;
    },
  ],
  'sends too much': [
    /sends more than was asked for/,
    (request, response) => {
      const [, start] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')!;
      response.writeHead(206, {
        'content-range': `bytes ${start}-${2 * mebi - 1}/${2 * mebi}`,
        etag: '"one"',
      });
      response.end(Buffer.alloc(2 * mebi));
      return true;
    },
  ],
  'sends the whole file all at once': [
    /does not give parts of the file any more/,
    (_request, response) => {
      response.writeHead(200, { etag: '"one"' });
      response.end(Buffer.alloc(1000));
      return true;
    },
  ],
  'never answers': [/does not answer/, () => true],
  'stops in the middle': [
    /stopped sending/,
    (request, response) => {
      const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')!;
      response.writeHead(206, {
        'content-range': `bytes ${start}-${end}/${2 * mebi}`,
        etag: '"one"',
      });
      response.write(Buffer.alloc(10));
      return true;
    },
  ],
  'has removed the file': [
    /the server answered 404 Not Found$/,
    (_request, response) => {
      response.writeHead(404);
      response.end();
      return true;
    },
  ],
  'always answers 500': [
    /the server answered 500 Internal Server Error$/,
    (_request, response) => {
      response.writeHead(500);
      response.end();
      return true;
    },
  ],
};

for (const [what, [expected, instead]] of Object.entries(lasting)) {
  test(`a server that ${what} is given up, in one line`, async (t) => {
    const server = await startWebServer(t, contentOf(2 * mebi), { etag: '"one"' });
    const file = await openOn(t, server, { timeoutSeconds: 0.1 });
    server.behaviour = { instead };
    const begun = performance.now();
    await assert.rejects(readAt(file, 700_000, 512), (error: CowherdError) => {
      assert.match(error.message, expected);
      assert.match(error.message, /^Could not read from 'http:[^\n]*disk' at byte \d+: [^\n]*$/);
      return true;
    });
    assert.ok(performance.now() - begun < 20_000, 'the wait is bounded');
  });
}

test('what cannot be opened is told in one line', async (t) => {
  const server = await startWebServer(t, contentOf(1000));
  const answer =
    (status: number, headers: Record<string, string> = {}): NonNullable<Behaviour['instead']> =>
    (_request, response) => {
      response.writeHead(status, headers);
      response.end();
      return true;
    };
  for (const [instead, code, expected] of [
    [answer(404), 'ERR_COWHERD_NOT_FOUND', /the server answered 404 Not Found$/],
    [answer(403), 'ERR_COWHERD_ACCESS', /the server answered 403 Forbidden$/],
    [answer(302, { location: '/again' }), 'ERR_COWHERD_IO', /redirects more than 10 times$/],
    [answer(302, { location: 'ftp://x/y' }), 'ERR_COWHERD_IO', /redirects to 'ftp:/],
    [answer(206), 'ERR_COWHERD_IO', /another range/],
    [answer(200, { 'transfer-encoding': 'chunked' }), 'ERR_COWHERD_UNSUPPORTED', /how long/],
  ] as const) {
    server.behaviour = { instead };
    await assert.rejects(openStorageFile(server.url, { readOnly: true }), (error: CowherdError) => {
      assert.equal(error.code, code);
      assert.match(error.message, expected);
      assert.match(error.message, /^Could not open 'http:[^\n]*disk': [^\n]*$/);
      return true;
    });
  }
  await assert.rejects(openStorageFile(server.url, {}), { code: 'ERR_COWHERD_READ_ONLY' });
  await assert.rejects(openStorageFile('http://127.0.0.1:1/x', { readOnly: true }), {
    code: 'ERR_COWHERD_IO',
    message: /ECONNREFUSED/,
  });
});

test('a server that gives no parts is read once, in order', async (t) => {
  const content = contentOf(40 * mebi);
  const server = await startWebServer(t, content, { ranges: false });
  const file = await openOn(t, server);
  for (let offset = 0; offset < content.length; offset += 4 * mebi) {
    // Not quite in order, as several requests at a time are.
    const offsets = [2, 0, 3, 1].map((each) => offset + each * mebi);
    await Promise.all(
      offsets.map(async (at) => {
        const bytes = await readAt(file, at, mebi);
        assert.equal(Buffer.compare(bytes, content.subarray(at, at + mebi)), 0);
      }),
    );
  }
  assert.equal(Buffer.compare(await readAt(file, 0, 512), content.subarray(0, 512)), 0);
  await assert.rejects(readAt(file, 3 * mebi, 512), {
    code: 'ERR_COWHERD_UNSUPPORTED',
    message: /can only be read from its begin to its end$/,
  });
});

test('passwords go to the server they are for, and into no message', async (t) => {
  const folder = await temporaryFolder(t);
  const seen: (string | undefined)[] = [];
  const elsewhere = await startWebServer(t, contentOf(1000), {
    instead: (request) => {
      seen.push(request.headers.authorization, request.headers['x-token'] as string | undefined);
      return false;
    },
  });
  const server = await startWebServer(t, contentOf(1000), {
    instead: (request, response) => {
      seen.push(request.headers.authorization);
      if (request.url !== '/folder/disk') return false;
      response.writeHead(302, { location: elsewhere.url });
      response.end();
      return true;
    },
  });
  const basic = `Basic ${Buffer.from('me:pass word').toString('base64')}`;
  const own = server.url.replace('//', '//me:pass%20word@');
  const file = await openStorageFile(own, {
    readOnly: true,
    http: { headers: { 'x-token': 'secret' } },
  });
  assert.ok(!file.filename.includes('pass'));
  await file.close();
  assert.deepEqual(seen, [basic, undefined, undefined]);

  const netrc = path.join(folder, 'netrc');
  await writeFile(
    netrc,
    'machine other login a password b\nmachine 127.0.0.1\n login me password "pass word"\n',
  );
  const before = process.env['NETRC'];
  process.env['NETRC'] = netrc;
  try {
    seen.length = 0;
    await (await openStorageFile(server.url, { readOnly: true })).close();
    assert.equal(seen[0], basic);
  } finally {
    if (before === undefined) delete process.env['NETRC'];
    else process.env['NETRC'] = before;
  }
});

test('a certificate has to be valid, unless one says otherwise', async (t) => {
  if (!needsTool(t, 'openssl')) return;
  const folder = await temporaryFolder(t);
  const [keyFile, certFile] = ['key.pem', 'cert.pem'].map((name) => path.join(folder, name));
  await runOk('openssl', [
    ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost'],
    ...['-keyout', keyFile, '-out', certFile],
  ]);
  const { readFile } = await import('node:fs/promises');
  const tls = { key: await readFile(keyFile, 'utf8'), cert: await readFile(certFile, 'utf8') };
  const content = contentOf(100_000);
  const server = await startWebServer(t, content, {}, tls);
  await assert.rejects(openStorageFile(server.url, { readOnly: true }), {
    code: 'ERR_COWHERD_IO',
    message: /certificate/,
  });
  const file = await openOn(t, server, { verifyCertificate: false });
  assert.equal(Buffer.compare(await readAt(file, 0, 100_000), content), 0);
  assert.equal(file.protocol, 'https');
});
