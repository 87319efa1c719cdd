/** Front-ends and drivers that break the rules: their queue or connection ends with one line, others go on. */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Server, serve } from '../../../src/export/serve.js';
import { Request } from '../../../src/export/vhost-user-blk/protocol.js';
import type { Image } from '../../../src/image/api/image.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { temporaryFolder } from '../../support/tools.js';
import {
  VhostUserClient,
  header,
  numberOf,
  numbers,
  pair,
} from '../../support/vhost-user-client.js';

const guestBase = 0x100000;

interface Served {
  readonly image: Image;
  readonly server: Server;
  readonly socket: string;
  readonly problems: string[];
}

async function served(t: TestContext): Promise<Served> {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: 1 << 20 });
  const image = await openImage(file);
  const socket = path.join(folder, 'disk.sock');
  const problems: string[] = [];
  const server = await serve([{ image }], {
    vhostUserBlk: `unix:${socket},queues=4,packed=on`,
    workers: 1,
    onProblem: (why) => problems.push(why),
  });
  t.after(async () => {
    await server.close();
    await image.close();
  });
  return { image, server, socket, problems };
}

async function readsZero(client: VhostUserClient, queue: number): Promise<void> {
  const parts = [
    { length: 16, isWritable: false },
    { length: 513, isWritable: true },
  ];
  const answer = await client.queues[queue].request(header(0, 0), parts);
  assert.equal(answer[512], 0);
}

/** Waits until something was told. */
async function told(problems: readonly string[]): Promise<string> {
  for (let turns = 0; problems.length === 0; turns++) {
    assert.ok(turns < 500, 'something is told');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return problems[0];
}

type Offer = readonly { address: number; length: number; flags: number }[];
const at = guestBase + 0x80000;
const offers: Readonly<Record<string, readonly [offer: Offer, why: RegExp]>> = {
  'memory that is not there': [
    [{ address: 0x1000, length: 16, flags: 0 }],
    /outside of guest memory/,
  ],
  'memory beyond 2^53': [[{ address: 2 ** 60, length: 16, flags: 0 }], /outside of guest memory/],
  'memory that ends too early': [
    [{ address: guestBase + 16 * 1024 * 1024 - 8, length: 16, flags: 0 }],
    /outside of guest memory/,
  ],
  'no room for a status': [[{ address: at, length: 16, flags: 0 }], /no room for its status/],
  'no header': [[{ address: at, length: 16, flags: 2 }], /no header/],
  'a short header': [
    [
      { address: at, length: 15, flags: 0 },
      { address: at + 4096, length: 1, flags: 2 },
    ],
    /no header/,
  ],
  'reading after writing': [
    [
      { address: at, length: 16, flags: 2 },
      { address: at + 4096, length: 16, flags: 0 },
    ],
    /is read follows one that is written/,
  ],
  'a table of an odd length': [
    [{ address: at, length: 17, flags: 4 }],
    /length that it cannot have/,
  ],
  'an empty table': [[{ address: at, length: 0, flags: 4 }], /length that it cannot have/],
  'a table outside': [[{ address: 0x1000, length: 16, flags: 4 }], /outside of guest memory/],
};

for (const packed of [false, true]) {
  for (const [what, [offer, why]] of Object.entries(offers)) {
    test(`${what} ends a ${packed ? 'packed' : 'split'} queue, and no other`, async (t) => {
      const { socket, problems } = await served(t);
      const client = await VhostUserClient.start(socket, { queues: 2, packed });
      void client.queues[0].offer(offer);
      assert.match(await told(problems), why);
      assert.match(problems[0], /^queue 0 is not served any more: /);
      await readsZero(client, 1);
      client.close();
      const next = await VhostUserClient.start(socket);
      await readsZero(next, 0);
      next.close();
      assert.equal(problems.length, 1);
    });
  }
}

test('a ring that leads astray ends its queue', async (t) => {
  const { socket, problems } = await served(t);
  const astray: readonly ((client: VhostUserClient) => void)[] = [
    // A head that there is not.
    (client) => void client.queues[0].expose(64),
    (client) => void client.queues[0].expose(65535),
    // A descriptor that comes after itself.
    (client) => {
      const { view } = client.ram;
      view.setBigUint64(0, BigInt(at), true);
      view.setUint32(8, 16, true);
      view.setUint16(12, 1, true);
      view.setUint16(14, 0, true);
      void client.queues[0].expose(0);
    },
    // A table that refers to another.
    (client) => {
      const table = 0x80000;
      client.ram.view.setBigUint64(table, BigInt(at), true);
      client.ram.view.setUint32(table + 8, 16, true);
      client.ram.view.setUint16(table + 12, 4, true);
      void client.queues[0].offer([{ address: at, length: 16, flags: 4 }]);
    },
    // More requests than there is room for.
    (client) => {
      client.ram.view.setUint16(4 * 4096 + 2, 500, true);
      void client.queues[0].expose(0);
      client.ram.view.setUint16(4 * 4096 + 2, 500, true);
    },
  ];
  for (const lead of astray) {
    const client = await VhostUserClient.start(socket, { queues: 2 });
    lead(client);
    assert.match(await told(problems), /^queue 0 is not served any more: /);
    problems.length = 0;
    await readsZero(client, 1);
    client.close();
  }
});

test('memory that is taken away ends the queue, not the program', async (t) => {
  const { socket, problems } = await served(t);
  const client = await VhostUserClient.start(socket, { queues: 1 });
  await readsZero(client, 0);
  // What its rings lie in stays, so that it goes on looking at them.
  ftruncateSync(client.ram.descriptor, 0x80000);
  const parts = [
    { address: guestBase + 0x1000, length: 16, flags: 0 },
    { address: guestBase + 0x100000, length: 4096, flags: 2 },
    { address: guestBase + 0x2000, length: 1, flags: 2 },
  ];
  client.ram.bytes.fill(0, 0x1000, 0x1010);
  void client.queues[0].offer(parts);
  assert.match(await told(problems), /guest memory was taken away/);
  client.close();
  const next = await VhostUserClient.start(socket);
  await readsZero(next, 0);
  next.close();
});

test('messages that are none end the connection with one line', async (t) => {
  const { socket, problems } = await served(t);
  const cases: readonly (readonly [say: (client: VhostUserClient) => void, why: RegExp])[] = [
    [(client) => void client.sendBytes(Buffer.alloc(12, 0xff)), /does not begin as one/],
    [
      (client) => {
        client.send(1, 5, Buffer.alloc(0), []);
      },
      /does not begin as one/,
    ],
    [
      (client) => {
        client.send(1, 2, Buffer.alloc(0), []);
      },
      /does not begin as one/,
    ],
    [
      (client) => {
        client.tell(2, Buffer.alloc(4));
      },
      /too short/,
    ],
    [
      (client) => {
        client.tell(99, Buffer.alloc(8));
      },
      /asks for 99, which is not known/,
    ],
    [
      (client) => {
        client.tell(Request.setFeatures, numberOf(1n << 60n));
      },
      /were not offered/,
    ],
    [
      (client) => {
        client.tell(Request.setVringNum, pair(4, 64));
      },
      /there is no queue 4/,
    ],
    [
      (client) => {
        client.tell(Request.setVringNum, pair(0, 63));
      },
      /of that size/,
    ],
    [
      (client) => {
        client.tell(Request.setVringNum, pair(0, 65536));
      },
      /of that size/,
    ],
    [
      (client) => {
        client.tell(Request.setMemTable, pair(1, 0));
      },
      /without their descriptors/,
    ],
    [
      (client) => {
        client.tell(Request.addMemReg, numbers(0, 0, 4096, 0, 0));
      },
      /without its descriptor/,
    ],
    [
      (client) => {
        const region = Buffer.alloc(40, 0xff);
        client.tell(Request.addMemReg, region, [client.ram.descriptor]);
      },
      /an address that there cannot be/,
    ],
    [
      (client) => {
        client.tell(Request.addMemReg, numbers(0, 0, 0, 0, 0), [client.ram.descriptor]);
      },
      /size that it cannot have/,
    ],
    [
      (client) => {
        client.tell(Request.setVringKick, numberOf(0n));
      },
      /without its descriptor/,
    ],
    [
      (client) => {
        client.tell(Request.setInflightFd, Buffer.alloc(24));
      },
      /without memory/,
    ],
  ];
  for (const [say, why] of cases) {
    const client = await VhostUserClient.connect(socket);
    say(client);
    await client.ended();
    assert.match(await told(problems), why);
    assert.equal(problems.length, 1, problems.join('; '));
    problems.length = 0;
    client.close();
  }
  const gone = await VhostUserClient.connect(socket);
  gone.sendBytes(Buffer.alloc(5));
  gone.close();
  assert.match(await told(problems), /gone in the middle/);
});

test('events that are none are refused or end their queue, and no descriptor is left', async (t) => {
  const { socket, problems } = await served(t);
  const open = (): number => readdirSync('/proc/self/fd').length;
  const round = async (): Promise<void> => {
    const client = await VhostUserClient.start(socket);
    const file = openSync('/dev/null', 'r');
    assert.equal(await client.tried(Request.setVringKick, numberOf(0n), [file]), false);
    closeSync(file);
    client.close();
    const next = await VhostUserClient.start(socket);
    await readsZero(next, 0);
    next.close();
  };
  await round();
  const before = open();
  for (let count = 0; count < 5; count++) await round();
  assert.ok(open() <= before + 2, `${open()} descriptors after ${before}`);
  problems.length = 0;
  // Its own end of the connection, which would outlive it in the server.
  const client = await VhostUserClient.start(socket);
  client.tell(Request.setVringCall, numberOf(0n), [client.socket]);
  await client.ended();
  assert.match(await told(problems), /brings a socket/);
  client.close();
  const next = await VhostUserClient.start(socket);
  await readsZero(next, 0);
  next.close();
});

test('front-ends that wait, and have gone, take no more than a few descriptors', async (t) => {
  const { socket } = await served(t);
  const first = await VhostUserClient.start(socket);
  const open = (): number => readdirSync('/proc/self/fd').length;
  const before = open();
  for (let count = 0; count < 40; count++) {
    const other = await VhostUserClient.connect(socket);
    other.close();
    await readsZero(first, 0);
  }
  assert.ok(open() < before + 20, `${open()} descriptors after ${before}`);
  first.close();
  const next = await VhostUserClient.start(socket);
  await readsZero(next, 0);
  next.close();
});
