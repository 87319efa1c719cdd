/** What a driver finds behind a vhost-user socket, and what each request does, in both forms of a queue. */
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ServeOptions, type Server, serve } from '../../../src/export/serve.js';
import { Feature, Request } from '../../../src/export/vhost-user-blk/protocol.js';
import type { Image } from '../../../src/image/api/image.js';
import type { OpenImageOptions } from '../../../src/image/api/options.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import {
  type ClientOptions,
  VhostUserClient,
  header,
  numberOf,
  numbers,
  pair,
  usualFeatures,
} from '../../support/vhost-user-client.js';

const diskBytes = 64 << 20;
const Type = { in: 0, out: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const;
const status = { length: 1, isWritable: true } as const;

interface Served extends AsyncDisposable {
  readonly image: Image;
  readonly server: Server;
  readonly socket: string;
  readonly file: string;
  readonly problems: string[];
}

async function served(
  t: TestContext,
  options: Partial<ServeOptions> = {},
  opening: OpenImageOptions = {},
  address = '',
): Promise<Served> {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: diskBytes });
  const image = await openImage(file, opening);
  const socket = path.join(folder, 'disk.sock');
  const problems: string[] = [];
  const server = await serve([{ image, name: 'disk' }], {
    vhostUserBlk: `unix:${socket},queues=4${address}`,
    workers: 1,
    onProblem: (why) => problems.push(why),
    ...options,
  });
  return {
    ...{ image, server, socket, file, problems },
    async [Symbol.asyncDispose]() {
      await server.close();
      await image.close();
    },
  };
}

/** Writes data at a sector, framed as the parts say. @returns the status */
async function write(
  client: VhostUserClient,
  sector: number,
  data: Uint8Array,
  queue = 0,
  type: number = Type.out,
): Promise<number> {
  const content = Buffer.concat([header(type, sector), data]);
  const parts = [
    { length: 16, isWritable: false },
    ...(data.length > 0 ? [{ length: data.length, isWritable: false }] : []),
    status,
  ];
  const answer = await client.queues[queue].request(content, parts);
  return answer[0];
}

async function read(
  client: VhostUserClient,
  sector: number,
  length: number,
  queue = 0,
): Promise<{ readonly data: Buffer; readonly status: number }> {
  const parts = [{ length: 16, isWritable: false }, { length, isWritable: true }, status];
  const answer = await client.queues[queue].request(header(Type.in, sector), parts);
  return { data: answer.subarray(0, length), status: answer[length] };
}

function range(sector: number, sectors: number, flags = 0): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(BigInt(sector), 0);
  bytes.writeUInt32LE(sectors, 8);
  bytes.writeUInt32LE(flags, 12);
  return bytes;
}

const forms: readonly ClientOptions[] = [
  { queues: 2 },
  { queues: 2, packed: true },
  { queues: 2, features: usualFeatures.filter((each) => each !== Feature.EVENT_IDX) },
  {
    ...{ queues: 2, packed: true },
    features: usualFeatures.filter((each) => each !== Feature.EVENT_IDX),
  },
];

for (const [index, form] of forms.entries()) {
  const what = `${form.packed === true ? 'packed' : 'split'} queues${index > 1 ? ' without indices' : ''}`;
  for (const workers of [1, 2]) {
    test(`each request does what it says, ${what}, ${workers} threads`, async (t) => {
      if (!needsTool(t, 'qemu-img')) return;
      await using disk = await served(t, { workers }, {}, ',packed=on');
      const client = await VhostUserClient.start(disk.socket, form);
      const data = Buffer.alloc(8192, 0xab);
      assert.equal(await write(client, 128, data), 0);
      const found = await read(client, 128, 8192, 1);
      assert.equal(found.status, 0);
      assert.ok(found.data.equals(data));
      assert.equal(await write(client, 0, Buffer.alloc(0), 0, Type.flush), 0);
      assert.equal(await write(client, 0, range(129, 2, 1), 1, Type.writeZeroes), 0);
      const part = await read(client, 128, 2048);
      const expected = Buffer.concat([
        data.subarray(0, 512),
        Buffer.alloc(1024),
        data.subarray(0, 512),
      ]);
      assert.ok(part.data.equals(expected));
      assert.equal(await write(client, 0, range(0, 1024), 0, Type.discard), 0);
      const two = Buffer.concat([range(0, 8), range(1 << 16, 8)]);
      assert.equal(await write(client, 0, two, 0, Type.discard), 0);
      const parts = [{ length: 16, isWritable: false }, { length: 20, isWritable: true }, status];
      const id = await client.queues[0].request(header(Type.getId, 0), parts);
      assert.equal(id.subarray(0, 20).toString('latin1').replace(/\0+$/, ''), 'disk');
      assert.equal(id[20], 0);
      client.close();
      await disk.server.close();
      await disk.image.close();
      await runOk('qemu-img', ['check', disk.file]);
      assert.deepEqual(disk.problems, []);
    });
  }
}

test('what cannot be done is refused by its status, and changes nothing', async (t) => {
  await using disk = await served(t);
  const client = await VhostUserClient.start(disk.socket);
  const end = diskBytes / 512;
  const [ioError, unsupported] = [1, 2];
  const block = Buffer.alloc(512, 1);
  assert.equal(await write(client, end, block), ioError, 'beyond the end');
  assert.equal(await write(client, end - 1, Buffer.alloc(1024)), ioError, 'over the end');
  assert.equal(await write(client, 2 ** 52, block), ioError, 'far beyond the end');
  assert.equal(await write(client, 0, Buffer.alloc(100)), ioError, 'no whole sectors');
  assert.equal(await write(client, 0, Buffer.alloc(0)), ioError, 'nothing');
  assert.equal((await read(client, end, 512)).status, ioError);
  assert.equal((await read(client, 0, 511)).status, ioError);
  assert.equal(await write(client, 0, block, 0, 77), unsupported, 'no request');
  assert.equal(await write(client, 0, range(0, 8, 2), 0, Type.writeZeroes), unsupported);
  assert.equal(await write(client, 0, range(0, 8, 1), 0, Type.discard), unsupported);
  assert.equal(await write(client, 0, range(end - 1, 2), 0, Type.discard), ioError);
  assert.equal(await write(client, 0, range(0, 4194304), 0, Type.discard), ioError);
  assert.equal(await write(client, 0, Buffer.alloc(17), 0, Type.discard), ioError);
  assert.equal(await write(client, 0, Buffer.alloc(33 * 16), 0, Type.discard), ioError);
  for await (const { data } of disk.image.map()) assert.equal(data, false);
  client.close();
  assert.deepEqual(disk.problems, []);
});

test('a disk that is read-only says so and stays as it is', async (t) => {
  await using disk = await served(t);
  const { image } = disk;
  const socket = `${disk.socket}2`;
  const server = await serve([{ image, readOnly: true }], {
    vhostUserBlk: `unix:${socket}`,
    workers: 1,
  });
  const client = await VhostUserClient.connect(socket);
  const features = (await client.ask(Request.getFeatures)).readBigUInt64LE();
  assert.equal((features >> Feature.RO) & 1n, 1n);
  client.close();
  const other = await VhostUserClient.start(socket);
  assert.equal(await write(other, 0, Buffer.alloc(512)), 1);
  assert.equal(await write(other, 0, range(0, 8), 0, Type.discard), 1);
  assert.equal((await read(other, 0, 512)).status, 0);
  other.close();
  await server.close();
});

test('what it tells of itself', async (t) => {
  await using disk = await served(t);
  const client = await VhostUserClient.connect(disk.socket);
  await client.agree({});
  assert.equal((await client.ask(Request.getQueueNum)).readBigUInt64LE(), 4n);
  const wanted = Buffer.alloc(12 + 60);
  wanted.writeUInt32LE(60, 4);
  const config = (await client.ask(Request.getConfig, wanted)).subarray(12);
  assert.equal(config.length, 60);
  assert.equal(config.readBigUInt64LE(0), BigInt(diskBytes / 512));
  assert.equal(config.readUInt32LE(8), 0, 'no size of segments');
  assert.equal(config.readUInt32LE(20), 512);
  assert.equal(config.readUInt32LE(28), 128, 'clusters');
  assert.equal(config[32], 1, 'a cache');
  assert.equal(config.readUInt16LE(34), 4);
  assert.equal(config.readUInt32LE(36), 4194303);
  const beyond = Buffer.alloc(12);
  beyond.writeUInt32LE(250, 0);
  beyond.writeUInt32LE(20, 4);
  assert.equal((await client.ask(Request.getConfig, beyond)).readUInt32LE(4), 0);
  client.close();
});

test('without a cache each change is durable when it is answered', async (t) => {
  await using disk = await served(t);
  const flushes = (): number => disk.image.stats().total.requests.flush;
  const block = Buffer.alloc(512, 3);
  const cached = await VhostUserClient.start(disk.socket);
  await write(cached, 0, block);
  assert.equal(flushes(), 0);
  const toggle = Buffer.alloc(13);
  toggle.writeUInt32LE(32, 0);
  toggle.writeUInt32LE(1, 4);
  await cached.acknowledged(Request.setConfig, toggle);
  await write(cached, 0, block);
  assert.equal(flushes(), 1);
  toggle[12] = 1;
  await cached.acknowledged(Request.setConfig, toggle);
  await write(cached, 0, block);
  assert.equal(flushes(), 1);
  toggle.writeUInt32LE(0, 0);
  assert.equal(await cached.tried(Request.setConfig, toggle), false, 'the capacity is not set');
  cached.close();
  // As SeaBIOS drives it: no flush that it could ask for.
  const simple = await VhostUserClient.start(disk.socket, {
    features: [Feature.VERSION_1, Feature.PROTOCOL_FEATURES],
  });
  const before = flushes();
  await write(simple, 0, block);
  assert.equal(flushes(), before + 1);
  simple.close();
});

test('a queue goes on where it was stopped, and one front-end after the other is served', async (t) => {
  await using disk = await served(t);
  const client = await VhostUserClient.start(disk.socket, { queues: 2 });
  for (let count = 0; count < 5; count++) await write(client, count, Buffer.alloc(512, count + 1));
  const base = await client.ask(Request.getVringBase, pair(0, 0));
  assert.deepEqual([base.readUInt32LE(0), base.readUInt32LE(4)], [0, 5]);
  client.tell(Request.setVringBase, pair(0, 5));
  client.tell(Request.setVringCall, numberOf(0n), [client.queues[0].call]);
  client.tell(Request.setVringKick, numberOf(0n), [client.queues[0].kick]);
  assert.equal((await read(client, 3, 512)).data[0], 4);
  await client.acknowledged(Request.setVringEnable, pair(0, 0));
  const waits = read(client, 2, 512);
  assert.equal((await read(client, 1, 512, 1)).data[0], 2, 'the other queue goes on');
  await client.acknowledged(Request.setVringEnable, pair(0, 1));
  assert.equal((await waits).data[0], 3);
  const next = VhostUserClient.start(disk.socket);
  assert.equal(disk.server.connections, 1);
  client.close();
  const other = await next;
  assert.equal((await read(other, 0, 512)).data[0], 1);
  other.close();
});

test('memory comes and goes while queues run', async (t) => {
  await using disk = await served(t);
  const client = await VhostUserClient.start(disk.socket);
  const more = numbers(0, 0x8000_0000, 65536, 0x7e00_0000_0000, 4096);
  await client.acknowledged(Request.addMemReg, more, [client.ram.descriptor]);
  assert.equal(await client.tried(Request.addMemReg, more, [client.ram.descriptor]), false);
  await write(client, 9, Buffer.alloc(512, 9));
  await client.acknowledged(Request.remMemReg, more);
  assert.equal((await read(client, 9, 512)).data[0], 9);
  assert.equal(await client.tried(Request.remMemReg, more), false, 'it is gone');
  client.close();
});

test('addresses that are none are refused in one line', async (t) => {
  await using disk = await served(t);
  const image = { image: disk.image, name: 'disk' };
  for (const [address, why] of [
    ['tcp:localhost:1', /unix:PATH or fd:N is expected/],
    ['unix:x,queues=0', /from 1 to 64 queues/],
    ['unix:x,queues=65', /from 1 to 64 queues/],
    ['unix:x,queues=1k', /queues=N, name=NAME or packed=on\|off is expected/],
    ['unix:x,packed=yes', /packed=on\|off is expected/],
    ['unix:x,name=other', /No image is served by the name 'other'/],
    ['unix:', /unix:PATH or fd:N is expected/],
    ['s', /unix:PATH or fd:N is expected/],
    ['unix:x,queues=2,queues=4', /queues is said twice/],
  ] as const) {
    await assert.rejects(serve([image], { vhostUserBlk: address }), {
      code: 'ERR_COWHERD_INVALID_ARGUMENT',
      message: why,
    });
  }
  const two = [image, { image: disk.image, name: 'b' }];
  await assert.rejects(serve(two, { vhostUserBlk: 'unix:x' }), /name=NAME: there are several/);
});

test('a disk that gets another size says so to a front-end that wants to be told', async (t) => {
  await using server = await served(t);
  const told: Buffer[] = [];
  const folder = await temporaryFolder(t);
  const channel = createServer((end) => end.on('data', (data) => told.push(data)));
  await new Promise<void>((resolve) => channel.listen(path.join(folder, 'channel'), resolve));
  t.after(() => channel.close());
  const client = await VhostUserClient.start(server.socket, { queues: 2 });
  const other = await VhostUserClient.connect(path.join(folder, 'channel'));
  await client.acknowledged(Request.setBackendReqFd, Buffer.alloc(0), [other.socket]);
  const capacity = async (): Promise<bigint> => {
    const wanted = Buffer.alloc(12 + 72);
    wanted.writeUInt32LE(72, 4);
    return (await client.ask(Request.getConfig, wanted)).readBigUInt64LE(12);
  };
  const writes = async (sector: number): Promise<number> => {
    const parts = [{ length: 16 + 512, isWritable: false }, status];
    const bytes = Buffer.concat([header(Type.out, sector), Buffer.alloc(512, 9)]);
    return (await client.queues[1].request(bytes, parts))[0];
  };
  const sectors = diskBytes / 512;
  assert.equal(await capacity(), BigInt(sectors));
  assert.equal(await writes(2 * sectors - 1), 1);
  await server.image.resize(2 * diskBytes);
  while (told.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.deepEqual([...Buffer.concat(told)], [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(await capacity(), BigInt(2 * sectors));
  assert.equal(await writes(2 * sectors - 1), 0);
  assert.equal(await writes(2 * sectors), 1);
  await server.image.resize('1M', { shrink: true });
  assert.equal(await writes(2 * sectors - 1), 1);
  assert.equal(await writes(2047), 0);
  assert.equal(await capacity(), 2048n);
  client.close();
  other.close();
  assert.deepEqual(server.problems, []);
});
