/** The NBD client, and servers that say anything. */
import { mkdtemp, rm } from 'node:fs/promises';
import { type Socket, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { CowherdError } from '../../../src/errors.js';
import { Info, Magic, Option, OptionReply, ReplyType } from '../../../src/nbd/protocol.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import type { Random } from '../../stress/random.js';
import {
  type Bytes,
  type Listener,
  type Protocol,
  type Said,
  bytesOf,
  damaged,
  edgeNumber,
  hex,
  text,
  within,
} from './conversation.js';

interface ServerSaid extends Said {
  readonly steps: readonly Bytes[];
}

const diskBytes = 1 << 20;
const readBytes = 4096;

function reply(option: number, type: number, data = ''): Bytes {
  return {
    given: `0003e889045565a9${hex(option, 4)}${hex(type, 4)}${hex(data.length / 2, 4)}${data}`,
  };
}

/** A chunk of a reply, whose data are said to be as long as they are. */
function chunk(type: number, cookie: number, data: string, more = 0, flags = 1): Bytes {
  const length = data.length / 2 + more;
  const head = hex(Magic.structuredReply, 4) + hex(flags, 2) + hex(type, 2) + hex(cookie, 8);
  return { given: head + hex(length, 4) + data, ...(more > 0 && { more }) };
}

function drawReply(random: Random): Bytes {
  const data = random.pick([
    '',
    hex(Info.export, 2) + hex(edgeNumber(random), 8) + hex(random.below(1 << 13), 2),
    hex(Info.blockSize, 2) + hex(edgeNumber(random), 4) + hex(4096, 4) + hex(edgeNumber(random), 4),
    hex(Info.name, 2) + text('disk'),
    hex(random.below(4), 4) + text('base:allocation'),
    text('why\nnot'),
  ]);
  const type = random.pick([...Object.values(OptionReply), 9, 0x80000063]);
  return reply(random.pick(Object.values(Option)), type, data);
}

function drawChunk(random: Random): Bytes {
  const type = random.pick([...Object.values(ReplyType), 77, 0x8002]);
  const cookie = random.chance(0.9) ? 1 + random.below(3) : edgeNumber(random);
  const offset = hex(random.chance(0.8) ? readBytes + random.below(readBytes) : 2n ** 64n - 1n, 8);
  const flags = random.pick([0, 0, 1, 1, 0xffff]);
  if (type === ReplyType.offsetData) {
    return chunk(type, cookie, offset, random.pick([0, 1, 512, readBytes, 100_000]), flags);
  }
  if (type === ReplyType.offsetHole) {
    return chunk(type, cookie, offset + hex(edgeNumber(random), 4), 0, flags);
  }
  const stretches = Array.from(
    { length: random.below(4) },
    () => hex(edgeNumber(random), 4) + hex(random.below(5), 4),
  );
  const words = type > 0x8000 ? hex(edgeNumber(random), 4) + hex(3, 2) + text('why') : '';
  return chunk(type, cookie, words || hex(random.below(3), 4) + stretches.join(''), 0, flags);
}

/** Steps of the handshake. */
const agreedSteps = 6;
/** Milliseconds in which a client makes its next request, if it does. */
const answeredMs = 20;
const requestBegin = Buffer.from(hex(Magic.request, 4), 'hex');

function draw(random: Random): ServerSaid {
  const info = hex(Info.export, 2) + hex(diskBytes, 8) + hex(random.pick([0x125, 3, 0]), 2);
  const steps: Bytes[] = [
    { given: text('NBDMAGICIHAVEOPT') + hex(random.chance(0.9) ? 3 : random.below(16), 2) },
    reply(Option.structuredReply, OptionReply.acknowledge),
    reply(Option.setMetaContext, OptionReply.metaContext, hex(1, 4) + text('base:allocation')),
    reply(Option.setMetaContext, OptionReply.acknowledge),
    reply(Option.go, OptionReply.info, info),
    reply(Option.go, OptionReply.acknowledge),
    chunk(ReplyType.offsetData, 1, hex(readBytes, 8), readBytes),
    chunk(ReplyType.blockStatus, 2, hex(1, 4) + hex(diskBytes, 4) + hex(3, 4)),
  ];
  // Where the handshake is as it should be, more is heard of what comes after it.
  const first = random.chance(0.7) ? agreedSteps : 1;
  for (let count = random.below(4); count > 0; count--) {
    const at = first + random.below(steps.length - first);
    const step = at >= agreedSteps ? drawChunk(random) : drawReply(random);
    steps.splice(at, random.below(2), step);
  }
  const kept = first === 1 ? 0 : first;
  return { steps: [...steps.slice(0, kept), ...damaged(steps.slice(kept), random)] };
}

async function listen(): Promise<Listener> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-fuzz-'));
  const socket = path.join(folder, 'socket');
  const clients = new Set<Socket>();
  let steps: readonly Bytes[] = [];
  const server = createServer((client) => {
    clients.add(client);
    client.on('error', () => undefined);
    client.on('close', () => clients.delete(client));
    const said = steps.map(bytesOf);
    let heard = Buffer.alloc(0);
    let requests = 0;
    let isEnding = false;
    client.on('data', (data: Buffer) => {
      heard = Buffer.concat([heard, data]);
      for (let at; (at = heard.indexOf(requestBegin)) >= 0; heard = heard.subarray(at + 4)) {
        const next = agreedSteps + requests;
        requests += 1;
        client.write(Buffer.concat(requests === 1 ? said.slice(next, next + 1) : said.slice(next)));
      }
      if (requests === 0 || isEnding) return;
      isEnding = true;
      // What has no answer by then hears that there will be none.
      setTimeout(() => client.end(), answeredMs);
    });
    client.write(Buffer.concat(said.slice(0, agreedSteps)));
    // One that is not content with the handshake says nothing more.
    setTimeout(() => {
      if (requests === 0) client.end();
    }, answeredMs);
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));

  const use = async (): Promise<string> => {
    const file = await openStorageFile(`nbd+unix:///?socket=${socket}`, {
      readOnly: true,
      nbd: { reconnectSeconds: 0 },
    });
    try {
      await file.read(new Uint8Array(readBytes), readBytes);
      await file.status(0, diskBytes);
      return 'it serves';
    } finally {
      await file.close();
    }
  };

  return {
    async judge(said) {
      ({ steps } = said as ServerSaid);
      try {
        return await within('a client', use());
      } catch (error) {
        const { code, message, stack } = error as CowherdError;
        const isOurs = code.startsWith('ERR_COWHERD_') && /^Could not [^\n]*$/.test(message);
        if (!isOurs) throw new Error(stack, { cause: error });
        return `${code}: ${message.replaceAll(socket, 'SOCKET')}`;
      } finally {
        for (const client of clients) client.destroy();
      }
    },
    async close() {
      await new Promise((resolve) => server.close(resolve));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** See the file's comment. */
export const nbdClient: Protocol = { draw, listen };
