/**
 * A server that is killed under load, and another one that goes on where it was: a driver sees nothing of it.
 * What was answered is there, flushed or not, and what was under way is done.
 */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { startServer } from '../../support/running-server.js';
import { type RunResult, needsTool, run, temporaryFolder } from '../../support/tools.js';
import {
  type InflightOfClient,
  type Part,
  VhostUserClient,
  header,
} from '../../support/vhost-user-client.js';

const kills = Number(process.env['COWHERD_TEST_RUNS'] ?? 5);
const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const sectorBytes = 512;
const sectors = 8 * 2048;
const queues = 2;
/** Requests of a queue at a time. */
const depth = 6;

/** Numbers that follow from the seed. */
function draws(from: number): (below: number) => number {
  let state = from % 2_147_483_646 || 1;
  return (below) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
}

/** As the real tool finds an image, once the kernel has ended what a killed process had under way. */
async function checkOnceFree(file: string): Promise<RunResult> {
  for (let turns = 0; ; turns++) {
    const check = await run('qemu-img', ['check', file]);
    if (turns === 100 || !check.stderr.includes('lock')) return check;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('a driver sees nothing of a server that is killed', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}, ${kills} kills`);
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: sectors * sectorBytes, clusterSize: 4096 });
  const socket = path.join(folder, 's');
  const words = ['--vhost-user-blk', 'unix:s,queues=4', '--workers', '2', 'disk.qcow2'];
  const inflight: InflightOfClient = {};
  const options = { queues, size: 64, inflight };
  const model = Buffer.alloc(sectors * sectorBytes);
  const draw = draws(seed);
  let isLoaded = true;
  let answered = 0;

  /** Each loader has sectors of its own, so that the order of requests does not matter. */
  const load = async (queue: number, lane: number): Promise<void> => {
    while (isLoaded) {
      const slot = (draw(Math.floor(sectors / 8 / queues / depth)) * queues + queue) * depth + lane;
      const sector = slot * 8;
      const count = 1 + draw(8);
      const kind = draw(8);
      const [from, to] = [sector * sectorBytes, (sector + count) * sectorBytes];
      const send = async (content: Buffer): Promise<void> => {
        const parts: Part[] = [
          { length: content.length, isWritable: false },
          { length: 1, isWritable: true },
        ];
        const [status] = await client.queues[queue].request(content, parts, draw(2) === 0);
        assert.equal(status, 0);
        answered += 1;
      };
      if (kind === 0) {
        await send(header(4, 0));
      } else if (kind === 1) {
        const range = Buffer.alloc(16);
        range.writeUInt32LE(sector, 0);
        range.writeUInt32LE(count, 8);
        range.writeUInt32LE(draw(2), 12);
        model.fill(0, from, to);
        await send(Buffer.concat([header(13, 0), range]));
      } else {
        model.fill(1 + draw(255), from, to);
        await send(Buffer.concat([header(1, sector), model.subarray(from, to)]));
      }
    }
  };

  let server = await startServer(t, folder, words);
  let client = await VhostUserClient.start(socket, options);
  const loads = Array.from({ length: queues * depth }, (_, index) =>
    load(index % queues, Math.floor(index / queues)),
  );
  for (let round = 1; round <= kills; round++) {
    await new Promise((resolve) => setTimeout(resolve, 20 + draw(150)));
    server.child.kill('SIGKILL');
    await server.ended;
    const before = answered;
    client.disconnect();
    const check = await checkOnceFree(file);
    // Clusters may be left that nothing refers to.
    assert.ok(
      check.code === 0 || check.code === 3,
      `round ${round}: ${check.stdout}${check.stderr}`,
    );
    server = await startServer(t, folder, words);
    client = await VhostUserClient.start(socket, options, client);
    for (let turns = 0; answered === before; turns++) {
      assert.ok(turns < 1000, `round ${round}: requests go on`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  isLoaded = false;
  await Promise.all(loads);
  // Not flushed: what was answered is there all the same.
  server.child.kill('SIGKILL');
  await server.ended;
  client.close();
  t.diagnostic(`${answered} requests`);
  await using image = await openImage(file, { readOnly: true });
  const content = Buffer.alloc(model.length);
  await image.read(content, 0);
  for (let at = 0; at < sectors; at++) {
    const [from, to] = [at * sectorBytes, (at + 1) * sectorBytes];
    assert.ok(content.subarray(from, to).equals(model.subarray(from, to)), `sector ${at}`);
  }
});
