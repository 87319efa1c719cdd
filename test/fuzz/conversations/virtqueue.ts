/** Virtqueues of both forms, and drivers that put anything into them. */
import type { Random } from '../../stress/random.js';
import { VhostUserClient } from '../../support/vhost-user-client.js';
import { type Listener, type Protocol, type Said, verdictOf, within } from './conversation.js';
import { readsZero, serveGuest } from './served-guest.js';

/** The fields of a descriptor; `next` is the id in a packed ring. */
interface Descriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

interface DriverSaid extends Said {
  /** The ring's table. */
  readonly steps: readonly Descriptor[];
  /** A table that some refer to. */
  readonly indirect: readonly Descriptor[];
  /** Heads made available in a split ring. */
  readonly heads: readonly number[];
  readonly packed: boolean;
}

const guestBase = 0x100000;
/** Where in guest memory the indirect table lies. */
const tableAt = 0x80000;
const edges = [0, 1, 2, 3, 15, 16, 17, 63, 64, 512, 4096, 65_535, 0x100000, 2 ** 32 - 1];
const places = [guestBase + tableAt, guestBase + tableAt + 64, guestBase, guestBase + 0x4000];
/** Milliseconds in which a queue takes what it can take. */
const settledMs = 30;

function drawDescriptor(random: Random): Descriptor {
  return {
    address: random.chance(0.7) ? random.pick(places) : random.pick(edges),
    length: random.pick(edges),
    flags: random.below(8),
    next: random.chance(0.7) ? random.below(64) : random.pick(edges),
  };
}

/** A request as a device expects it, for others to spoil. */
function drawRequest(random: Random): Descriptor[] {
  const data = guestBase + 0x100000;
  const length = random.pick([0, 1, 512, 513, 4096, 65_536]);
  return [
    { address: guestBase + tableAt + 0x1000, length: 16, flags: 1, next: 1 },
    { address: data, length, flags: random.pick([1, 3]), next: 2 },
    { address: data + 0x20000, length: 1, flags: 2, next: 0 },
  ];
}

function draw(random: Random): DriverSaid {
  const several = (most: number): Descriptor[] =>
    Array.from({ length: random.below(most) }, () => drawDescriptor(random));
  const steps = [...(random.chance(0.6) ? drawRequest(random) : []), ...several(16)];
  if (steps.length > 0 && random.chance(0.3)) {
    steps[random.below(steps.length)] = drawDescriptor(random);
  }
  return {
    steps,
    indirect: several(8),
    heads: Array.from({ length: 1 + random.below(5) }, () =>
      random.chance(0.5) ? 0 : random.below(70),
    ),
    packed: random.chance(0.5),
  };
}

function lay(view: DataView, place: number, table: readonly Descriptor[], packed: boolean): void {
  table.forEach(({ address, length, flags, next }, index) => {
    const at = place + index * 16;
    const all = packed ? flags | (next % 2 === 0 ? 0x80 : 0x8080) : flags;
    view.setBigUint64(at, BigInt(address), true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + (packed ? 14 : 12), all, true);
    view.setUint16(at + (packed ? 12 : 14), next & 0xffff, true);
  });
}

async function listen(): Promise<Listener> {
  const guest = await serveGuest();
  const { socket, problems } = guest;
  return {
    async judge(said) {
      const { steps, indirect, heads, packed } = said as DriverSaid;
      problems.length = 0;
      const start = VhostUserClient.start(socket, { queues: 2, packed });
      const client = await within('a driver', start);
      const [queue] = client.queues;
      const { view, bytes } = client.ram;
      lay(view, tableAt, indirect, packed);
      lay(view, 0, steps, packed);
      // A read, whose header is where requests have it.
      bytes.fill(0, tableAt + 0x1000, tableAt + 0x1010);
      const given = packed
        ? [queue.offer([{ address: guestBase + tableAt, length: 32, flags: 4 }])]
        : heads.map((head) => queue.expose(head));
      const settled = new Promise((resolve) => setTimeout(resolve, settledMs));
      await Promise.race([Promise.all(given), settled]);
      await readsZero(client, 1);
      client.close();
      await guest.servesNext();
      const verdict = verdictOf(problems);
      const isOfQueue = problems.length === 0 || verdict.startsWith('queue 0 is not served');
      if (!isOfQueue) throw new Error(verdict);
      return verdict;
    },
    close: () => guest.close(),
  };
}

/** See the file's comment. */
export const virtqueue: Protocol = { draw, listen };
