/** The vhost-user back-end, and front-ends that send any messages. */
import { Request } from '../../../src/export/vhost-user-blk/protocol.js';
import type { Random } from '../../stress/random.js';
import { VhostUserClient, numbers, pair } from '../../support/vhost-user-client.js';
import { type Listener, type Protocol, type Said, verdictOf } from './conversation.js';
import { serveGuest } from './served-guest.js';

interface Message {
  readonly request: number;
  readonly flags: number;
  /** In hexadecimal. */
  readonly payload: string;
  /** So many times the descriptor of guest memory comes along. */
  readonly descriptors: number;
}

interface FrontEndSaid extends Said {
  readonly steps: readonly Message[];
  /** Two queues run before it says anything. */
  readonly isRunning: boolean;
}

/** Milliseconds in which messages are dealt with. */
const heardMs = 20;
const edges = [0, 1, 2, 3, 64, 4096, 0x100000, 0x8000_0000, 0x7f00_0000_0000];

function drawPayload(random: Random): Uint8Array {
  const kind = random.below(3);
  if (kind === 0) {
    return numbers(...Array.from({ length: random.below(6) }, () => random.pick(edges)));
  }
  if (kind === 1) return pair(random.below(6), random.pick([0, 1, 64, 128, 65_535]));
  return Uint8Array.from({ length: random.below(300) }, () => random.below(256));
}

function draw(random: Random): FrontEndSaid {
  const steps = Array.from({ length: 1 + random.below(12) }, (): Message => {
    const request = random.chance(0.8)
      ? random.pick(Object.values(Request))
      : random.pick([0, 6, 7, 20, 21, 33, 42, 2 ** 32 - 1]);
    return {
      request,
      flags: random.chance(0.9) ? random.pick([1, 9, 9]) : random.pick([5, 0]),
      payload: Buffer.from(drawPayload(random)).toString('hex'),
      descriptors: random.pick([0, 0, 1, 1, 2, 8]),
    };
  });
  return { steps, isRunning: random.chance(0.5) };
}

async function listen(): Promise<Listener> {
  const guest = await serveGuest();
  const { socket, problems } = guest;
  return {
    async judge(said) {
      const { steps, isRunning } = said as FrontEndSaid;
      problems.length = 0;
      const client = isRunning
        ? await VhostUserClient.start(socket, { queues: 2 })
        : await VhostUserClient.connect(socket);
      for (const { request, flags, payload, descriptors } of steps) {
        const along = Array.from({ length: descriptors }, () => client.ram.descriptor);
        client.send(request, flags, Buffer.from(payload, 'hex'), along);
      }
      // One that goes at once may not have been heard to its end.
      const heard = new Promise((resolve) => setTimeout(resolve, heardMs));
      await Promise.race([client.ended(), heard]);
      client.close();
      await guest.servesNext();
      // A queue may end by itself besides.
      const ofMessages = problems.filter((problem) => !problem.startsWith('queue '));
      // A message that is to be acknowledged is refused with a line, and the next one is heard.
      return verdictOf(ofMessages, steps.length);
    },
    close: () => guest.close(),
  };
}

/** See the file's comment. */
export const vhostUser: Protocol = { draw, listen };
