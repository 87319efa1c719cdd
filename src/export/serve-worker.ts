/** A thread that serves clients: joins the images, and has a queue of its own for each client. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Image } from '../image/api/image.js';
import { attachImage } from '../image/threads/attach.js';
import { describeError } from '../image/threads/error-transfer.js';
import { type NbdExport, exportOf } from './nbd/connection.js';
import { NbdHost } from './nbd/host.js';
import type { ServeNews, ServeOrder, ServeOrders } from './serve-messages.js';

const port = parentPort!;
const tell = (news: ServeNews): void => {
  port.postMessage(news);
};

const images: Image[] = [];
try {
  const { exports: orders, tls } = workerData as ServeOrders;
  const exports: NbdExport[] = [];
  for (const { handle, ...facts } of orders) {
    const image = await attachImage(handle);
    images.push(image);
    exports.push(exportOf(image, facts));
  }
  const host = new NbdHost(exports, tls, (why) => {
    tell({ kind: 'problem', why });
  });
  serve(host);
  tell({ kind: 'ready' });
} catch (error) {
  await fail(error);
}

function serve(host: NbdHost): void {
  port.on('message', (order: ServeOrder) => {
    if (order.kind === 'close') {
      host
        .close()
        .then(closeImages)
        .then(() => {
          tell({ kind: 'closed' });
        }, fail);
      return;
    }
    void host.serve(order.descriptor).then(() => {
      tell({ kind: 'gone', client: order.client });
    });
  });
}

async function closeImages(): Promise<void> {
  for (const image of images) await image.close();
}

/** Tells why this thread cannot go on. */
async function fail(error: unknown): Promise<void> {
  tell({ kind: 'failed', error: describeError(error) });
  await closeImages().catch(() => undefined);
}
