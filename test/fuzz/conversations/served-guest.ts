/** An image served to guests by vhost-user-blk, with what tells whether it still is. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { serve } from '../../../src/export/serve.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { VhostUserClient, header } from '../../support/vhost-user-client.js';
import { within } from './conversation.js';

/** See the file's comment. */
export interface ServedGuest {
  readonly socket: string;
  /** What was told since this was last emptied. */
  readonly problems: string[];
  /** @throws if the next front-end is not served */
  servesNext(): Promise<void>;
  /** @throws if what was served is damaged, or descriptors are left */
  close(): Promise<void>;
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
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-fuzz-'));
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size: 1 << 20 });
  const image = await openImage(file);
  const socket = path.join(folder, 'socket');
  const problems: string[] = [];
  const server = await serve([{ image }], {
    vhostUserBlk: `unix:${socket},queues=4,packed=on`,
    workers: 1,
    onProblem: (why) => problems.push(why),
  });
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
    async close() {
      await server.close();
      const { corruptions, checkErrors } = await image.check();
      await image.close();
      await rm(folder, { recursive: true });
      if (corruptions + checkErrors > 0) throw new Error('the image served is damaged');
    },
  };
}
