/** A thread of `bench`: joins the image, waits for the word to begin, and runs the load of its queue. */
import { parentPort, workerData } from 'node:worker_threads';
import type { ImageHandle } from '../image/api/image.js';
import { attachImage } from '../image/threads/attach.js';
import { type ErrorMessage, describeError } from '../image/threads/error-transfer.js';
import { type LatencyCounts, type LoadOrders, RequestLoad } from './request-load.js';

/** What a thread answers. */
export type BenchAnswer = { readonly latencies: LatencyCounts } | { readonly error: ErrorMessage };

const port = parentPort!;
const { handle, orders } = workerData as { handle: ImageHandle; orders: LoadOrders };
const image = await attachImage(handle);
const cancel = new AbortController();
const load = new RequestLoad(image, image.size, orders, cancel.signal);
const begin = new Promise<void>((resolve) => {
  port.on('message', (order: 'begin' | 'stop') => {
    if (order === 'stop') cancel.abort();
    resolve();
  });
});
try {
  port.postMessage('ready');
  await begin;
  await load.run();
  port.postMessage({ latencies: load.latencies } satisfies BenchAnswer);
} catch (error) {
  port.postMessage({ error: describeError(error) } satisfies BenchAnswer);
} finally {
  port.unref();
  await image.close();
}
