/** Worker threads that end in the middle of their work, and many that work at once. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import { addon } from '../../src/native/addon.js';
import type { EngineName } from '../../src/native/ring.js';
import { codecFor } from '../../src/native/codecs.js';
import {
  attachStorageFile,
  openStorageFile,
} from '../../src/storage/registry.js';
import type { StorageHandle } from '../../src/storage/storage.js';
import type { StorageFile } from '../../src/storage/storage.js';
import { diskFolder } from '../storage/backends.js';

/** What a worker of these tests is told. */
interface Orders {
  readonly how: 'terminate' | 'exit' | 'finish';
  readonly place: { filename: string; aio: EngineName; direct: boolean } | StorageHandle;
}

const requests = 200;
const requestBytes = 16_384;

/** Keeps many requests of every kind under way, and ends as it was told. */
async function work({ how, place }: Orders): Promise<void> {
  const file: StorageFile =
    'protocol' in place
      ? await attachStorageFile(place)
      : await openStorageFile(place.filename, {
          aio: place.aio,
          cache: place.direct ? 'none' : 'writeback',
          forceShare: true,
        });
  const codec = codecFor('zlib');
  const halfBytes = requests * requestBytes;
  const copiers = [false, true].map((isShared) =>
    file.dataCopier({ granule: 0, sparseSize: 0, stretchBytes: 4096, isShared }),
  );
  const buffers = Array.from({ length: requests }, () => new Uint8Array(requestBytes).fill(7));
  let rounds = 0;
  for (;;) {
    const pending = buffers.map((buffer, index) => {
      const offset = index * requestBytes + (index % 3 === 0 ? 100 : 0);
      if (index % 20 === 0) return codec.compress(buffer, new Uint8Array(requestBytes));
      return index % 2 === 0 ? file.read(buffer, offset) : file.write(buffer, offset);
    });
    const [copier] = copiers;
    copiers.reverse();
    const source = { file, offset: 0, length: halfBytes };
    const copying = copier.copy([source], halfBytes, halfBytes).then(({ failure }) => {
      if (failure !== undefined) throw failure;
    });
    pending.push(copying, file.flush());
    if (rounds === 2) parentPort!.postMessage('working');
    // In the middle: nothing has been awaited yet.
    if (rounds === 3 && how === 'exit') {
      await new Promise(setImmediate);
      process.exit(0);
    }
    await Promise.all(pending);
    rounds += 1;
    if (rounds === 5 && how === 'finish') break;
  }
  await file.close();
}

if (!isMainThread) {
  await work(workerData as Orders);
} else {
  const skip = addon === undefined ? 'needs the addon' : false;

  const newFile = (t: TestContext): string => {
    const filename = path.join(diskFolder(t), 'file');
    writeFileSync(filename, new Uint8Array(requests * requestBytes * 2));
    return filename;
  };

  const runWorker = async (orders: Orders): Promise<void> => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: orders });
    const ended = new Promise<number>((resolve, reject) => {
      worker.once('exit', resolve);
      worker.once('error', reject);
    });
    if (orders.how === 'terminate') {
      await new Promise((resolve) => worker.once('message', resolve));
      await worker.terminate();
      await ended;
    } else {
      assert.equal(await ended, 0);
    }
  };

  for (const how of ['terminate', 'exit', 'finish'] as const) {
    for (const aio of ['auto', 'io_uring', 'threads'] as const) {
      for (const direct of [false, true]) {
        const name = `workers that ${how}: ${aio}${direct ? ', O_DIRECT' : ''}`;
        test(name, { skip }, async (t) => {
          const filename = newFile(t);
          const orders = { how, place: { filename, aio, direct } };
          await Promise.all(Array.from({ length: 4 }, () => runWorker(orders)));
          // Nothing of theirs is left: descriptors are closed, so the file can be locked again.
          const file = await openStorageFile(filename);
          await file.close();
        });
      }
    }
  }

  test('workers attached to one file outlive each other', { skip }, async (t) => {
    const filename = newFile(t);
    const file = await openStorageFile(filename, { cache: 'none' });
    const place = file.handle!()!;
    const hows = ['terminate', 'finish', 'exit', 'finish', 'terminate'] as const;
    await Promise.all(hows.map((how) => runWorker({ how, place })));
    await assert.rejects(openStorageFile(filename), { code: 'ERR_COWHERD_LOCKED' });
    await file.write(new Uint8Array(512), 0);
    await file.close();
    await (await openStorageFile(filename)).close();
  });
}
