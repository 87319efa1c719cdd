/** A pool of threads that serve one image. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { type PoolOptions, openPool } from '../../../src/image/threads/pool.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

const size = 64 * 1024 * 1024;

async function newPlace(t: TestContext): Promise<string> {
  const place = path.join(await temporaryFolder(t), 'pool.qcow2');
  await createImage(place, { format: 'qcow2', size, clusterSize: 4096 });
  return place;
}

const shapes: readonly PoolOptions[] = [
  { queues: 1 },
  { queues: 3 },
  { queues: 5, threads: 2 },
  { queues: 4, affinity: 'region', regionBytes: 1 << 20 },
];

for (const shape of shapes) {
  test(`what a pool writes, it reads: ${JSON.stringify(shape)}`, async (t) => {
    const place = await newPlace(t);
    const pool = await openPool(place, { ...shape, cacheSize: 1 });
    assert.equal(pool.size, size);
    const shared = new Uint8Array(new SharedArrayBuffer(5000)).fill(9);
    await Promise.all(
      Array.from({ length: 200 }, (_, index) =>
        index % 2 === 0
          ? pool.write(new Uint8Array(5000).fill(index), index * 300_000)
          : pool.write(shared, index * 300_000),
      ),
    );
    await pool.flush();
    await pool.writeZeroes(0, 100);
    await pool.discard(40 * 300_000, 65536);
    const plain = new Uint8Array(5000);
    for (const index of [1, 2, 3, 198, 199]) {
      await pool.read(plain, index * 300_000);
      assert.ok(plain.every((byte) => byte === (index % 2 === 0 ? index : 9)));
      await pool.read(shared, index * 300_000);
      assert.deepEqual(Uint8Array.from(shared), plain);
    }
    const { queues, total } = pool.stats();
    assert.equal(total.requests.write, 200);
    const busy = queues.filter(({ requests }) => requests.write > 0);
    assert.equal(busy.length, shape.queues, 'every queue has had some of them');
    await pool.close();
    if (!needsTool(t, 'qemu-img')) return;
    const { code, stdout } = await run('qemu-img', ['check', place]);
    assert.equal(code, 0, stdout);
  });
}

test('errors keep their code, file and offset', async (t) => {
  const place = await newPlace(t);
  await assert.rejects(openPool(place, { queues: 0 }), { code: 'ERR_COWHERD_INVALID_ARGUMENT' });
  await assert.rejects(openPool(`${place}.no`, { queues: 1 }), { code: 'ERR_COWHERD_NOT_FOUND' });
  const pool = await openPool(place, { queues: 2 });
  await assert.rejects(pool.read(new Uint8Array(10), size), {
    name: 'CowherdError',
    code: 'ERR_COWHERD_OUT_OF_RANGE',
    filename: place,
    offset: size,
  });
  await pool.close();
  await assert.rejects(pool.read(new Uint8Array(10), 0), { code: 'ERR_COWHERD_CLOSED' });
  await pool.close();
});

test('a pool nobody uses does not keep the program alive', async (t) => {
  const place = await newPlace(t);
  const library = new URL('../../../src/index.js', import.meta.url).href;
  const program = `
    const { openPool } = await import(${JSON.stringify(library)});
    const pool = await openPool(${JSON.stringify(place)}, { queues: 2 });
    await pool.write(new Uint8Array(10).fill(1), 0);
    await pool.flush();
  `;
  const { code, stderr } = await run(process.execPath, ['--input-type=module', '-e', program], {
    timeoutMs: 20_000,
  });
  assert.equal(code, 0, stderr);
});
