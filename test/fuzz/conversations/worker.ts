/** The thread in which a side of a protocol meets hostile peers. */
import { workerData } from 'node:worker_threads';
import { judgeCases } from '../judge-thread.js';
import type { Conversation, Listener } from './conversation.js';
import { protocols } from './protocols.js';

let listener: Promise<Listener> | undefined;

judgeCases(
  async ({ said }: Conversation) => {
    listener ??= protocols[workerData as string].listen();
    return await (await listener).judge(said);
  },
  async () => {
    await (await listener)?.close();
  },
);
