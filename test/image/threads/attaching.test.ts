/** Threads that are stopped while they attach to an image. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { Worker, isMainThread, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import type { ImageHandle } from '../../../src/image/api/image.js';
import { attachImage } from '../../../src/image/threads/attach.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { CowherdError } from '../../../src/errors.js';
import { addon } from '../../../src/native/addon.js';
import { needsTool, run, temporaryFolder } from '../../support/tools.js';

interface Orders {
  readonly handle: ImageHandle;
  /** Set when the thread has loaded everything and attaches now. */
  readonly begun: Int32Array;
}

const terminations = Number(process.env['COWHERD_TERMINATIONS'] ?? 40);

if (isMainThread) {
  test('a thread stopped while it attaches ends nobody else, and poisons only what it had joined', async (t) => {
    if (addon === undefined) {
      t.skip('without the addon a terminated thread is not noticed');
      return;
    }
    const file = path.join(await temporaryFolder(t), 'disk.qcow2');
    await createImage(file, { format: 'qcow2', size: '64M' });
    let joined = 0;
    for (let round = 0; round < terminations; round++) {
      const image = await openImage(file);
      await image.write(new Uint8Array(65536).fill(round), 65536 * (round % 64));
      await image.flush();
      const begun = new Int32Array(new SharedArrayBuffer(4));
      const worker = new Worker(fileURLToPath(import.meta.url), {
        workerData: { handle: image.handle(), begun } satisfies Orders,
      });
      worker.on('error', () => undefined);
      await Atomics.waitAsync(begun, 0, 0).value;
      const stop = performance.now() + (round / terminations) * 4;
      while (performance.now() < stop) await Promise.resolve();
      await worker.terminate();
      const hasJoined = image.stats().threads > 1;
      const used = image.write(new Uint8Array(4096).fill(1), 0);
      if (hasJoined) {
        joined++;
        await assert.rejects(used, (error: unknown) => {
          assert.ok(error instanceof CowherdError);
          return error.code === 'ERR_COWHERD_POISONED';
        });
        await image.close().catch(() => undefined);
      } else {
        await used;
        await image.close();
      }
    }
    t.diagnostic(`${joined} of ${terminations} threads had joined`);
    assert.ok(joined < terminations, 'no thread was stopped early enough');
    if (!needsTool(t, 'qemu-img')) return;
    const { code, stdout } = await run('qemu-img', ['check', file]);
    assert.ok(code === 0 || code === 3, stdout);
  });
} else {
  const { handle, begun } = workerData as Orders;
  Atomics.store(begun, 0, 1);
  Atomics.notify(begun, 0);
  const image = await attachImage(handle);
  // Never left: the thread is stopped while it has joined.
  await image.read(new Uint8Array(512), 0);
  setInterval(() => undefined, 1000);
}
