/** A thread of a pool: joins the image and runs the requests it is sent, all at the same time. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Image, RequestTarget } from '../api/image.js';
import { attachImage } from './attach.js';
import { describeError } from './error-transfer.js';
import type { PoolAnswer, PoolOrders, PoolRequest } from './pool-messages.js';

const port = parentPort!;
const { handle, queues } = workerData as PoolOrders;
const image = await attached();
const targets: RequestTarget[] = [image];

let answers: PoolAnswer[] = [];

port.on('message', (requests: readonly PoolRequest[]) => {
  for (const request of requests) {
    run(request).then(
      () => {
        answer({ id: request.id, error: undefined });
      },
      (error: unknown) => {
        answer({ id: request.id, error: describeError(error) });
      },
    );
  }
});
try {
  while (targets.length < queues) targets.push(await image.openQueue());
  answer({ id: 0, error: undefined });
} catch (error) {
  await image.close().catch(() => undefined);
  giveUp(error);
}

async function attached(): Promise<Image> {
  try {
    return await attachImage(handle);
  } catch (error) {
    return giveUp(error);
  }
}

/** Tells why this thread cannot serve the image, and ends it. */
function giveUp(error: unknown): never {
  port.postMessage([{ id: 0, error: describeError(error) }] satisfies PoolAnswer[]);
  process.exit(1);
}

function run(request: PoolRequest): Promise<void> {
  const { operation, offset, length, unmap, buffer } = request;
  const target = targets[request.queue];
  switch (operation) {
    case 'read':
      return target.read(buffer!, offset);
    case 'write':
      return target.write(buffer!, offset);
    case 'writeZeroes':
      return target.writeZeroes(offset, length, { unmap });
    case 'discard':
      return target.discard(offset, length);
    case 'flush':
      return target.flush();
    case 'close':
      return image.close();
  }
}

/** Collects the answers of one turn into one message. */
function answer(each: PoolAnswer): void {
  answers.push(each);
  if (answers.length > 1) return;
  setImmediate(() => {
    port.postMessage(answers);
    answers = [];
  });
}
