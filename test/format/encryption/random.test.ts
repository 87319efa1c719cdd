/** Requests at random to encrypted disks, from several queues and threads, beside a model. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CreateImageOptions } from '../../../src/image/api/options.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { attachImage } from '../../../src/image/threads/attach.js';
import { openPool } from '../../../src/image/threads/pool.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 6);
const size = 40 * 16384;
const secret = 'hunter2';
const luks = { secret, iterTime: 1 } as const;

const shapes: Readonly<Record<string, CreateImageOptions>> = {
  luks: { format: 'luks', size, encrypt: luks },
  qcow2: {
    format: 'qcow2',
    size,
    clusterSize: 16384,
    encrypt: { ...luks, format: 'luks', cipherMode: 'cbc', ivgenAlg: 'essiv' },
  },
  'extended qcow2': {
    format: 'qcow2',
    size,
    clusterSize: 16384,
    extendedL2: true,
    encrypt: { ...luks, format: 'luks' },
  },
  'old qcow2': {
    format: 'qcow2',
    size,
    clusterSize: 4096,
    encrypt: { secret, format: 'aes' },
  },
};

/** A change of a part of the disk that is one queue's alone, so that changes of several run side by side. */
const change = fc.record({
  kind: fc.constantFrom('write', 'write', 'write', 'zero', 'discard', 'vector'),
  at: fc.nat(size / 4 - 1),
  length: fc.oneof(fc.integer({ min: 1, max: 3000 }), fc.integer({ min: 1, max: 80_000 })),
  fill: fc.integer({ min: 1, max: 255 }),
});

for (const [name, options] of Object.entries(shapes)) {
  test(`what several queues and threads write at random is read: ${name}`, async (t) => {
    t.diagnostic(`seed ${seed}, ${runs} runs`);
    const folder = await temporaryFolder(t);
    const hasTool = needsTool(t, 'qemu-img');
    const file = path.join(folder, 'disk');
    const oneQueue = fc.array(change, { minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(fc.array(oneQueue, { minLength: 4, maxLength: 4 }), async (parts) => {
        await createImage(file, options);
        const model = new Uint8Array(size);
        {
          await using image = await openImage(file, { encrypt: { secret } });
          await image.writeZeroes(0, size);
          await using other = await attachImage(structuredClone(image.handle()));
          const more = [await image.openQueue(), await other.openQueue()];
          const queues = [image, other, ...more];
          await Promise.all(
            parts.map(async (steps, index) => {
              const queue = queues[index];
              for (const { kind, at: within, length: wanted, fill } of steps) {
                const at = (index * size) / 4 + within;
                const length = Math.min(wanted, size / 4 - within);
                const bytes = new Uint8Array(length).fill(fill);
                const half = length >> 1;
                if (kind === 'write') await queue.write(bytes, at);
                else if (kind === 'zero') await queue.writeZeroes(at, length);
                else if (kind === 'discard') await queue.discard(at, length);
                else await queue.writev([bytes.subarray(half), bytes.subarray(0, half)], at);
                if (kind !== 'discard') model.fill(kind === 'zero' ? 0 : fill, at, at + length);
                const found = new Uint8Array(length);
                await queue.read(found, at);
                if (kind === 'discard') model.set(found, at);
                const expected = model.subarray(at, at + length);
                assert.ok(Buffer.compare(found, expected) === 0, `${kind} at ${at} + ${length}`);
              }
            }),
          );
          for (const queue of more) await queue.close();
        }
        await using image = await openImage(file, { encrypt: { secret }, readOnly: true });
        const found = new Uint8Array(size);
        await image.read(found, 0);
        assert.ok(Buffer.compare(found, model) === 0);
        if (!hasTool || options.format === 'luks') return;
        const opts = `driver=qcow2,encrypt.key-secret=s,file.filename=${file}`;
        const object = ['--object', `secret,id=s,data=${secret}`];
        await runOk('qemu-img', ['check', '-q', ...object, '--image-opts', opts]);
      }),
      { seed, numRuns: runs },
    );
  });
}

test('threads of a pool have the key, and what they are told of the secret is nothing', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk');
  const given = Buffer.from(secret);
  const encrypt = { format: 'luks', secret: given, iterTime: 1 } as const;
  await createImage(file, { format: 'qcow2', size, encrypt });
  const pool = await openPool(file, { queues: 4, threads: 2, encrypt: { secret } });
  const pieces = Array.from({ length: 64 }, (_, index) => index);
  const bytes = (index: number): Uint8Array => new Uint8Array(9000).fill(index + 1);
  await Promise.all(pieces.map((index) => pool.write(bytes(index), index * 9728)));
  await pool.close();
  await using image = await openImage(file, { encrypt: { secret: given }, readOnly: true });
  assert.equal(given.toString(), secret, 'what was given is left as it is');
  assert.ok(!JSON.stringify(image.handle()).includes(secret));
  for (const index of pieces) {
    const found = new Uint8Array(9000);
    await image.read(found, index * 9728);
    assert.deepEqual(found, bytes(index));
  }
});
