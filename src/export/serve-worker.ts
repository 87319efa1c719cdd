/** A thread that serves clients: joins the images, and has a queue of its own for each client. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Image } from '../image/api/image.js';
import { attachImage } from '../image/threads/attach.js';
import { describeError } from '../image/threads/error-transfer.js';
import { type NbdExport, exportOf } from './nbd/connection.js';
import { NbdHost } from './nbd/host.js';
import { pinThread } from '../native/thread-affinity.js';
import { FuseHost } from './fuse/fuse-host.js';
import { VhostUserHost } from './vhost-user-blk/host.js';
import type { ServeNews, ServeOrder, ServeOrders } from './serve-messages.js';

const port = parentPort!;
const tell = (news: ServeNews): void => {
  port.postMessage(news);
};

const images: Image[] = [];
try {
  const { exports: orders, tls, pollMicroseconds, processor } = workerData as ServeOrders;
  // Whether it can is known by the thread that has started this one.
  if (processor !== undefined) pinThread([processor]);
  const exports: NbdExport[] = [];
  for (const { handle, ...facts } of orders) {
    const image = await attachImage(handle);
    images.push(image);
    exports.push(exportOf(image, facts));
  }
  const onProblem = (why: string): void => {
    tell({ kind: 'problem', why });
  };
  const nbd = new NbdHost(exports, tls, onProblem);
  serve(nbd, new VhostUserHost(exports, pollMicroseconds, onProblem), new FuseHost(exports));
  tell({ kind: 'ready' });
} catch (error) {
  await fail(error);
}

function serve(nbd: NbdHost, vhostUser: VhostUserHost, fuse: FuseHost): void {
  const answer = (id: number, work: Promise<number | undefined>): void => {
    work.then(
      (value) => {
        tell({ kind: 'answer', id, value, refusal: undefined });
      },
      (error: unknown) => {
        const refusal = error instanceof Error ? error.message : String(error);
        tell({ kind: 'answer', id, value: undefined, refusal });
      },
    );
  };
  port.on('message', (order: ServeOrder) => {
    switch (order.kind) {
      case 'close':
        Promise.all([nbd.close(), vhostUser.close(), fuse.close()])
          .then(closeImages)
          .then(() => {
            tell({ kind: 'closed' });
          }, fail);
        break;
      case 'serve':
        void nbd.serve(order.descriptor).then(() => {
          tell({ kind: 'gone', client: order.client });
        });
        break;
      case 'device':
        answer(order.id, vhostUser.carryOut(order.order));
        break;
      case 'mount':
        answer(
          order.id,
          fuse.serve(order.order).then(() => undefined),
        );
        break;
    }
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
