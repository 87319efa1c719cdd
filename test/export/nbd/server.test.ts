/** Images served to NBD clients: through several connections and threads at once, whatever clients do. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { type ServeOptions, type Server, serve } from '../../../src/export/serve.js';
import type { Image } from '../../../src/image/api/image.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { NbdClient, type NbdClientOptions } from '../../support/nbd-client.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const mebi = 1024 * 1024;

interface Served {
  readonly folder: string;
  readonly file: string;
  readonly socket: string;
  readonly image: Image;
  readonly server: Server;
  readonly problems: string[];
  /** Ends the server, and closes the image. */
  readonly end: () => Promise<void>;
}

async function serveImage(
  t: TestContext,
  {
    size = 8 * mebi,
    format = 'qcow2',
    readOnly = false,
    ...more
  }: Partial<ServeOptions> & {
    readonly size?: number;
    readonly format?: 'raw' | 'qcow2';
    readonly readOnly?: boolean;
  } = {},
): Promise<Served> {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk');
  await createImage(file, { format, size });
  const image = await openImage(file, { format });
  const socket = path.join(folder, 'socket');
  const problems: string[] = [];
  const server = await serve([{ image, name: 'disk', description: 'for tests', readOnly }], {
    nbd: `unix:${socket}`,
    workers: 2,
    onProblem: (why) => problems.push(why),
    ...more,
  });
  let ended: Promise<void> | undefined;
  const end = (): Promise<void> => {
    ended ??= server.close().finally(() => image.close());
    return ended;
  };
  t.after(end);
  return { folder, file, socket, image, server, problems, end };
}

const styles = ['simple', 'structured', 'extended'] as const;

/** One step of a client; the bytes are the step's number. */
interface Step {
  readonly kind: 'read' | 'write' | 'zero' | 'trim' | 'flush';
  readonly offset: number;
  readonly length: number;
  readonly client: number;
}

const diskBytes = 8 * mebi;

const step: fc.Arbitrary<Step> = fc
  .record({
    kind: fc.constantFrom('read', 'write', 'write', 'zero', 'trim', 'flush'),
    offset: fc.oneof(
      fc.nat(diskBytes - 1),
      fc.nat(diskBytes / 65_536 - 1).map((cluster) => cluster * 65_536),
    ),
    length: fc.oneof(
      fc.integer({ min: 1, max: 10_000 }),
      fc.constantFrom(512, 4096, 65_536, 131_072),
      fc.integer({ min: 1, max: mebi }),
    ),
    client: fc.nat(3),
  })
  .map((each) => ({ ...each, length: Math.min(each.length, diskBytes - each.offset) }));

/** Steps that may run side by side: none of them touches what another one changes. */
function apart(steps: readonly Step[]): Step[] {
  const chosen: Step[] = [];
  for (const each of steps) {
    const meets = (other: Step): boolean =>
      each.offset < other.offset + other.length && other.offset < each.offset + each.length;
    if (each.kind === 'flush' || !chosen.some(meets)) chosen.push(each);
  }
  return chosen;
}

for (const format of ['qcow2', 'raw'] as const) {
  test(`several clients at once see what a model sees, ${format}`, async (t) => {
    const { file, socket, end } = await serveImage(t, { format });
    const clients = await Promise.all(
      [0, 1, 2, 3].map((index) =>
        NbdClient.connect(socket, { name: 'disk', style: styles[index % 3] }),
      ),
    );
    const model = Buffer.alloc(diskBytes);
    let fill = 0;
    const steps = fc.array(step, { minLength: 1, maxLength: 24 });
    await fc.assert(
      fc.asyncProperty(steps, async (drawn) => {
        await Promise.all(
          apart(drawn).map(async ({ kind, offset, length, client: index }) => {
            const client = clients[index];
            if (kind === 'read') {
              const { error, data } = await client.read(offset, length);
              assert.equal(error, 0);
              const expected = model.subarray(offset, offset + length);
              assert.equal(Buffer.compare(data, expected), 0, `${length} bytes at ${offset}`);
              return;
            }
            if (kind === 'flush') {
              assert.equal((await client.flush()).error, 0);
              return;
            }
            if (kind === 'write') {
              const bytes = Buffer.alloc(length, (fill = (fill % 255) + 1));
              bytes.copy(model, offset);
              const fua = index % 2;
              assert.equal((await client.write(offset, bytes, fua)).error, 0);
              return;
            }
            model.fill(0, offset, offset + length);
            if (kind === 'zero') {
              const noHole = 2 * (length % 2);
              assert.equal((await client.writeZeroes(offset, length, noHole)).error, 0);
              return;
            }
            // What is trimmed may read as anything: it is written anew.
            assert.equal((await client.trim(offset, length)).error, 0);
            assert.equal((await client.write(offset, Buffer.alloc(length))).error, 0);
          }),
        );
      }),
      { numRuns: 60 },
    );
    await Promise.all(clients.map((client) => client.close()));
    await end();
    await writeFile(`${file}.model`, model);
    if (needsTool(t, 'qemu-img')) {
      await runOk('qemu-img', ['compare', '-f', format, '-F', 'raw', file, `${file}.model`]);
      if (format === 'qcow2') await runOk('qemu-img', ['check', '-f', 'qcow2', file]);
    }
  });
}

test('an export is what its facts say, in each style', async (t) => {
  const { socket } = await serveImage(t, { size: 5 * mebi + 512 });
  for (const style of styles) {
    const client = await NbdClient.connect(socket, { style });
    assert.equal(client.size, 5 * mebi + 512);
    // Flags, flush, FUA, trim, write zeroes, several connections, cache, fast zeroes.
    assert.equal(client.flags & 0b1111_0111_1111, 0b1101_0110_1101);
    assert.equal((client.flags & (1 << 7)) !== 0, style !== 'simple');
    await client.close();
  }
  await assert.rejects(NbdClient.connect(socket, { name: 'other' }), /no export of that name/);
});

test('block status tells what is stored, in each style', async (t) => {
  const { socket, image } = await serveImage(t);
  await image.write(Buffer.alloc(3 * 65_536, 1), mebi);
  await image.writeZeroes(2 * mebi, mebi);
  await image.flush();
  const contexts = ['base:allocation', 'qemu:allocation-depth', 'nobody:knows'];
  for (const style of ['structured', 'extended'] as const) {
    const client = await NbdClient.connect(socket, { style, contexts });
    assert.deepEqual([...client.contexts.keys()], contexts.slice(0, 2));
    const { error, status } = await client.blockStatus(0, 8 * mebi);
    assert.equal(error, 0);
    assert.deepEqual(status.get(client.contexts.get('base:allocation')!), [
      [mebi, 3],
      [3 * 65_536, 0],
      [7 * mebi - 3 * 65_536, 3],
    ]);
    assert.deepEqual(status.get(client.contexts.get('qemu:allocation-depth')!), [
      [mebi, 0],
      [3 * 65_536, 1],
      [mebi - 3 * 65_536, 0],
      [mebi, 1],
      [5 * mebi, 0],
    ]);
    const one = await client.blockStatus(mebi + 512, 4 * mebi, 8);
    assert.deepEqual(one.status.get(client.contexts.get('base:allocation')!), [
      [3 * 65_536 - 512, 0],
    ]);
    await client.close();
  }
  const without = await NbdClient.connect(socket, { style: 'structured' });
  assert.equal((await without.blockStatus(0, mebi)).error, 22);
  await without.close();
});

test('what cannot be done is an error of that request alone', async (t) => {
  for (const style of styles) {
    const { socket, end } = await serveImage(t, { size: mebi });
    const client = await NbdClient.connect(socket, { style });
    const huge = 2n ** 63n;
    assert.equal((await client.read(mebi - 511, 512)).error, 22);
    assert.equal((await client.request(0, { offset: huge, length: 512 })).error, 22);
    assert.equal((await client.write(mebi, Buffer.alloc(1))).error, 28);
    assert.equal((await client.writeZeroes(0, mebi + 1)).error, 28);
    assert.equal((await client.request(0, { offset: 0, length: 0xffffffff })).error, 22);
    assert.equal((await client.request(99, { offset: 0, length: 0 })).error, 22);
    assert.equal((await client.request(3, { offset: 0, length: 0, flags: 0x8000 })).error, 22);
    assert.equal((await client.read(0, 0)).error, 0);
    assert.equal((await client.write(0, Buffer.from('still here'))).error, 0);
    assert.equal((await client.read(0, 10)).data.toString(), 'still here');
    await client.close();
    await end();
  }
  const { socket } = await serveImage(t, { readOnly: true });
  const client = await NbdClient.connect(socket, { style: 'structured' });
  assert.equal(client.flags & 0b110_0010, 2);
  assert.equal((await client.write(0, Buffer.alloc(512))).error, 1);
  assert.equal((await client.trim(0, 512)).error, 1);
  assert.equal((await client.flush()).error, 0);
  await client.close();
});

test('clients that vanish leave the others alone', async (t) => {
  const { socket, server } = await serveImage(t);
  const stays = await NbdClient.connect(socket);
  for (let round = 0; round < 10; round++) {
    const goes = await NbdClient.connect(socket, { style: styles[round % 3] });
    const under = Array.from({ length: 20 }, (_, index) =>
      index % 2 === 0
        ? goes.read(index * 65_536, 65_536)
        : goes.write(index * 65_536, Buffer.alloc(65_536, 9)),
    );
    for (const each of under) each.catch(() => undefined);
    if (round % 2 === 0) await under[0].catch(() => undefined);
    goes.socket.destroy();
    assert.equal((await stays.write(0, Buffer.alloc(512, round))).error, 0);
    assert.equal((await stays.read(0, 512)).data[511], round);
  }
  await stays.close();
  await server.left;
  while (server.connections > 0) await new Promise((resolve) => setTimeout(resolve, 10));
});

test('a client that takes no replies is read no further, and keeps nobody from ending', async (t) => {
  const { socket, image, end } = await serveImage(t, { size: 64 * mebi });
  const client = await NbdClient.connect(socket);
  client.socket.pause();
  const reads = Array.from({ length: 600 }, () => client.read(0, mebi));
  for (const each of reads) each.catch(() => undefined);
  let before = -1;
  while (before !== image.stats().total.bytesRead) {
    before = image.stats().total.bytesRead;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  assert.ok(before > 0 && before <= 70 * mebi, `${before} bytes were read`);
  const stays = await NbdClient.connect(socket);
  assert.equal((await stays.read(0, 512)).error, 0);
  await stays.close();
  const begun = performance.now();
  await end();
  assert.ok(performance.now() - begun < 10_000);
  client.socket.destroy();
});

test('so many clients at a time, and the next when one has gone', async (t) => {
  const { socket, server } = await serveImage(t, { connections: 2 });
  const first = await NbdClient.connect(socket);
  const second = await NbdClient.connect(socket);
  let isThere = false;
  const third = NbdClient.connect(socket).then((client) => {
    isThere = true;
    return client;
  });
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(isThere, false);
  assert.equal(server.connections, 2);
  await first.close();
  assert.equal((await (await third).read(0, 512)).error, 0);
  await second.close();
  await (await third).close();
});

test('requests under way are answered when the server ends', async (t) => {
  const { socket, end, file } = await serveImage(t);
  const client = await NbdClient.connect(socket, { style: 'structured' });
  await client.write(0, Buffer.alloc(512, 1));
  const writes = Array.from({ length: 30 }, (_, index) =>
    client.write(mebi + index * 65_536, Buffer.alloc(65_536, index + 1)),
  );
  const ends = await Promise.allSettled([...writes, end()]);
  const done = writes.flatMap((_, index) => (ends[index].status === 'fulfilled' ? [index] : []));
  const image = await openImage(file, { readOnly: true });
  t.after(() => image.close());
  for (const index of done) {
    const bytes = Buffer.alloc(65_536);
    await image.read(bytes, mebi + index * 65_536);
    assert.ok(bytes.equals(Buffer.alloc(65_536, index + 1)), `write ${index}`);
  }
});

test('names and addresses that cannot be are refused', async (t) => {
  const { image, socket } = await serveImage(t);
  const refused = (options: ServeOptions, message: RegExp, count = 1): Promise<void> =>
    assert.rejects(
      serve(
        Array.from({ length: count }, () => ({ image })),
        options,
      ),
      { message },
    );
  await refused({ nbd: 'disk.sock' }, /Invalid address 'disk\.sock'/);
  await refused({ nbd: 'tcp:host:99999' }, /Invalid address/);
  await refused({ nbd: `unix:/tmp/${'x'.repeat(103)}` }, /at most 107 bytes/);
  await refused({ nbd: 'unix:/none/there/s' }, /: No such file or directory$/);
  await refused({ nbd: 5 } as unknown as ServeOptions, /nbd is 5/);
  await refused({ nbd: 'unix:x', foo: 1 } as unknown as ServeOptions, /no option 'foo'/);
  await refused(undefined as unknown as ServeOptions, /an object is expected/);
  await assert.rejects(serve([{ image, name: 'a\ud800' }], { nbd: 'unix:x' }), /bytes of UTF-8/);
  await assert.rejects(serve([{ image: {} as Image }], { nbd: 'unix:x' }), /open image/);
  await refused({ nbd: [] }, /No address/);
  await refused({ nbd: `unix:${socket}` }, /Could not listen at .*Address already in use/);
  await refused({ nbd: 'unix:/none/there' }, /Could not listen at 'unix:\/none\/there'/);
  await refused({ nbd: 'unix:x', workers: 0 }, /workers/);
  await refused({ nbd: 'unix:x', connections: 0 }, /connections/);
  await refused({ nbd: 'unix:x' }, /by the name ''/, 2);
  await refused({ nbd: 'unix:x' }, /No image/, 0);
});

/** What clients of other makes do. */
const clientOptions: NbdClientOptions = { name: 'disk' };

test('the real tools copy from and to a served image', async (t) => {
  if (!needsTool(t, 'qemu-img') || !needsTool(t, 'qemu-io')) return;
  const { folder, socket, file, end } = await serveImage(t, { size: 64 * mebi });
  const url = `nbd+unix:///${clientOptions.name!}?socket=${socket}`;
  const source = path.join(folder, 'source.raw');
  await writeFile(source, Buffer.alloc(20 * mebi, 0x5a));
  await runOk('qemu-img', ['resize', '-f', 'raw', source, '64M']);
  await runOk('qemu-img', [
    'convert',
    '-n',
    '-f',
    'raw',
    '-O',
    'raw',
    '-m',
    '8',
    '-W',
    source,
    url,
  ]);
  await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, url]);
  await runOk('qemu-io', ['-f', 'raw', '-c', 'write -P 7 1M 2M', '-c', 'write -z 30M 1M', url]);
  await runOk('qemu-io', ['-f', 'raw', '-c', 'discard 4M 1M', '-c', 'read -P 7 1M 2M', url]);
  await runOk('qemu-io', ['-f', 'raw', '-c', 'write -f -P 8 5000 12345', '-c', 'flush', url]);
  const mapped = await runOk('qemu-img', ['map', '--output=json', '-f', 'raw', url]);
  await end();
  const stored = await runOk('qemu-img', ['map', '--output=json', file]);
  const stretches = (text: string): unknown =>
    (JSON.parse(text) as { start: number; length: number; zero: boolean; data: boolean }[]).map(
      ({ zero, data }) => [zero, data],
    );
  const joined = (text: string): string => {
    const each = stretches(text) as unknown[][];
    return JSON.stringify(
      each.filter((one, index) => JSON.stringify(one) !== JSON.stringify(each[index - 1])),
    );
  };
  assert.equal(joined(mapped), joined(stored));
  await runOk('qemu-img', ['check', file]);
});
