/** An image served to guests by vhost-user-blk, with what tells whether it still is. */
import { readdir } from 'node:fs/promises';
import { VhostUserClient, header } from '../../support/vhost-user-client.js';
import { within } from './conversation.js';
import { type ServedImage, serveNew } from './served-image.js';

/** See the file's comment. */
export interface ServedGuest extends Pick<ServedImage, 'socket' | 'problems' | 'close'> {
  /** @throws if the next front-end is not served, or descriptors are left */
  servesNext(): Promise<void>;
}

/** Reads a sector and its status by a queue. @throws if the answer is not what it has to be */
export async function readsZero(client: VhostUserClient, queue: number): Promise<void> {
  const parts = [
    { length: 16, isWritable: false },
    { length: 513, isWritable: true },
  ];
  const answer = await within('a request', client.queues[queue].request(header(0, 8), parts));
  if (answer[512] !== 0) throw new Error(`queue ${queue} answers with status ${answer[512]}`);
}

/** Serves a new image of 1 MiB by four queues. */
export async function serveGuest(): Promise<ServedGuest> {
  const served = await serveNew(1 << 20, (socket) => ({
    vhostUserBlk: `unix:${socket},queues=4,packed=on`,
  }));
  const { socket, problems } = served;
  let fewest: number | undefined;
  return {
    socket,
    problems,
    async servesNext() {
      const next = await within('a front-end', VhostUserClient.start(socket));
      await readsZero(next, 0);
      next.close();
      const { length } = await readdir('/proc/self/fd');
      fewest = Math.min(fewest ?? length, length);
      if (length > fewest + 64) throw new Error(`${length} descriptors are open after ${fewest}`);
    },
    close: () => served.close(),
  };
}
