/** The NBD server, and clients that say anything. */
import { connect } from 'node:net';
import { Command, Magic, Option } from '../../../src/nbd/protocol.js';
import type { Random } from '../../stress/random.js';
import { NbdClient } from '../../support/nbd-client.js';
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
  verdictOf,
  within,
} from './conversation.js';
import { serveNew } from './served-image.js';

interface ClientSaid extends Said {
  readonly steps: readonly Bytes[];
  /** It does not wait for the end. */
  readonly isHasty: boolean;
}

const diskBytes = 8 << 20;
const named = (words: string): string => hex(Buffer.byteLength(words), 4) + text(words);

function option(kind: number, data: string): Bytes {
  return { given: text('IHAVEOPT') + hex(kind, 4) + hex(data.length / 2, 4) + data };
}

function drawOption(random: Random): Bytes {
  const name = random.pick(['disk', 'disk', '', 'other', 'd'.repeat(5000), '\u{1f404}']);
  const queries = Array.from({ length: random.below(4) }, () =>
    random.pick(['base:allocation', 'qemu:', 'qemu:allocation-depth', 'qemu:dirty-bitmap:b', 'x']),
  );
  const infos = Array.from({ length: random.below(5) }, () => hex(random.below(6), 2));
  const contexts = named(name) + hex(queries.length, 4) + queries.map(named).join('');
  const kind = random.pick([...Object.values(Option), 4, 77]);
  if (kind === Option.exportName) return option(kind, text(name));
  if (kind === Option.info || kind === Option.go) {
    return option(kind, named(name) + hex(infos.length, 2) + infos.join(''));
  }
  const hasContexts = kind === Option.listMetaContext || kind === Option.setMetaContext;
  if (hasContexts) return option(kind, contexts);
  return option(kind, random.chance(0.8) ? '' : contexts);
}

function drawRequest(random: Random, isExtended: boolean, cookie: number): Bytes {
  const kind = random.pick([...Object.values(Command), Command.read, Command.write, 8, 99]);
  // A client that says goodbye is no longer heard.
  const command = kind === Command.disconnect && random.chance(0.8) ? Command.flush : kind;
  const offset = random.chance(0.9)
    ? BigInt(edgeNumber(random))
    : random.pick([2n ** 63n - 1n, 2n ** 64n - 1n, 2n ** 63n, BigInt(diskBytes) - 1n]);
  const length = edgeNumber(random);
  const payload = command === Command.write ? Math.min(length, diskBytes) : 0;
  const flags = random.chance(0.6) ? 0 : random.below(64);
  return {
    given:
      hex(isExtended ? Magic.extendedRequest : Magic.request, 4) +
      hex(command === Command.write && isExtended ? flags | 32 : flags, 2) +
      hex(command, 2) +
      hex(cookie, 8) +
      hex(offset, 8) +
      hex(length, isExtended ? 8 : 4),
    ...(payload > 0 && { more: random.chance(0.9) ? payload : random.below(payload) }),
  };
}

function draw(random: Random): ClientSaid {
  const style = random.pick([undefined, Option.structuredReply, Option.extendedHeaders]);
  const steps: Bytes[] = [{ given: hex(random.chance(0.9) ? 3 : random.below(16), 4) }];
  if (style !== undefined) steps.push(option(style, ''));
  if (random.chance(0.4)) {
    const query = named('base:allocation');
    steps.push(option(Option.setMetaContext, named('disk') + hex(1, 4) + query));
  }
  for (let count = random.below(4); count > 0; count--) steps.push(drawOption(random));
  if (random.chance(0.9)) steps.push(option(Option.go, named('disk') + hex(0, 2)));
  for (let count = random.below(12); count > 0; count--) {
    steps.push(drawRequest(random, style === Option.extendedHeaders, count));
  }
  return { steps: damaged(steps, random), isHasty: random.chance(0.1) };
}

async function listen(): Promise<Listener> {
  const served = await serveNew(diskBytes, (socket) => ({ nbd: `unix:${socket}` }));
  const { server, socket, problems } = served;
  return {
    async judge(said) {
      const { steps, isHasty } = said as ClientSaid;
      problems.length = 0;
      const client = connect(socket);
      client.on('error', () => undefined);
      client.resume();
      const closed = new Promise((resolve) => client.once('close', resolve));
      for (const step of steps) client.write(bytesOf(step));
      if (isHasty) client.destroySoon();
      else client.end();
      await within('the end of a connection', closed);
      const next = await within('a connection', NbdClient.connect(socket, { name: 'disk' }));
      const { error, data } = await within('a read', next.read(diskBytes - 512, 512));
      if (error !== 0 || data.length !== 512) throw new Error(`the next client reads ${error}`);
      await within('a goodbye', next.close());
      while (isHasty && server.connections > 0) await new Promise(setImmediate);
      const verdict = verdictOf(problems);
      return isHasty ? 'it has gone' : verdict;
    },
    close: () => served.close(),
  };
}

/** See the file's comment. */
export const nbdServer: Protocol = { draw, listen };
