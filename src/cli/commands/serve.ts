/** `cowherd serve`: images for other programs and virtual machines, through many queues at once. */
import { lstat, readFile, unlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type Server, type ServedImage, serve } from '../../export/serve.js';
import { readTlsFolder } from '../../export/nbd/tls.js';
import { describeErrno } from '../../system-errors.js';
import { CliError, usageError } from '../process/cli-error.js';
import { isBackground, leaveForeground, runInBackground } from '../process/background.js';
import type { Session } from '../process/session.js';
import type { Command } from './command.js';
import {
  count,
  interrupted,
  ServedImages,
  processorsOf,
  servingOptions,
  workersOf,
} from './serving.js';
import { credentialsNamed, readObjects } from '../options/objects.js';
import { type OptionSpecs, type ParsedCommandLine, parseCommandLine } from '../options/options.js';
import { displayStats } from '../text/stats-display.js';

const options = {
  ...servingOptions,
  nbd: {
    long: 'nbd',
    argument: 'ADDRESS',
    help: 'serve NBD clients at unix:PATH, tcp:HOST:PORT or fd:N (a socket that listens); may be given again; default the sockets that systemd gives',
  },
  vhostUserBlk: {
    long: 'vhost-user-blk',
    argument: 'ADDRESS',
    help: 'be a block device for a virtual machine at unix:PATH or fd:N, each with [,queues=N][,name=NAME][,packed=on]; may be given again; default 16 queues',
  },
  poll: {
    long: 'poll',
    argument: 'MICROSECONDS',
    help: 'how long a queue of a virtual machine is looked at before its thread waits; default 100',
  },
  socket: { short: 'k', long: 'socket', argument: 'PATH', help: 'the same as --nbd unix:PATH' },
  bind: { short: 'b', long: 'bind', argument: 'HOST', help: 'serve NBD clients at this address' },
  port: {
    short: 'p',
    long: 'port',
    argument: 'PORT',
    help: 'serve NBD clients at this port; default 10809',
  },
  name: {
    short: 'x',
    long: 'name',
    aliases: ['export-name'],
    argument: 'NAME',
    help: 'what clients call the image by, once for each; default is nothing, or the file names of several',
  },
  description: {
    short: 'D',
    long: 'description',
    argument: 'TEXT',
    help: 'what clients are told of the image, once for each',
  },
  bitmap: {
    short: 'B',
    long: 'bitmap',
    argument: 'NAME',
    help: 'show this persistent bitmap of the images; may be given again',
  },
  connections: {
    short: 'e',
    long: 'shared',
    argument: 'N',
    help: 'clients at a time, others wait; default 0, as many as there can be: 240 or so',
  },
  tlsCreds: {
    long: 'tls-creds',
    argument: 'FOLDER',
    help: 'take only connections with TLS: server-cert.pem and server-key.pem, with ca-cert.pem that clients are held to, or keys.psk',
  },
  once: { long: 'once', help: 'end when the last client has gone' },
  persistent: { short: 't', long: 'persistent', help: 'accepted; the default' },
  fork: {
    long: 'fork',
    help: 'go on in the background once clients can connect, with nothing more to say',
  },
  pidFile: { long: 'pid-file', argument: 'PATH', help: 'write the number of the process there' },
} as const satisfies OptionSpecs<string>;

type Line = ParsedCommandLine<keyof typeof options>;

/** The command. */
export const serveCommand: Command = {
  name: 'serve',
  summary: 'Serve images to other programs and virtual machines, through many queues at once',
  operands: 'IMAGE...',
  options,
  examples: [
    'serve --nbd unix:disk.sock --name disk disk.qcow2',
    'serve --nbd tcp:127.0.0.1:10809 --workers 4 -r disk.qcow2',
    'serve --vhost-user-blk unix:disk.sock,queues=4 --workers 2 disk.qcow2',
  ],
  async run(words, session) {
    const line = parseCommandLine('serve', options, words);
    const objects = readObjects(line.all('object'));
    if (line.has('fork') && !isBackground) return await runInBackground(words, session);
    const addresses = addressesOf(line);
    const names = namesOf(line);
    const pollMicroseconds = count(line.last('poll'), 'time to poll', 0, 1_000_000);
    const workers = workersOf(line);
    const processors = processorsOf(line);
    const most = count(line.last('connections'), 'number of clients', 0, 0x7fffffff) ?? 0;
    const credentials = line.last('tlsCreds');
    if (addresses.length === 0 && (credentials !== undefined || most > 0)) {
      throw usageError(
        'serve',
        '--tls-creds and --shared are for NBD clients, whom nothing serves',
      );
    }
    if (pollMicroseconds !== undefined && !line.has('vhostUserBlk')) {
      throw usageError(
        'serve',
        '--poll is for block devices (--vhost-user-blk), and there is none',
      );
    }
    const tls =
      credentials === undefined
        ? undefined
        : await readTlsFolder(credentialsNamed(credentials, objects, 'server').folder);
    const opened = new ServedImages();
    const { images } = opened;
    try {
      for (const given of line.operands) await opened.open(given, line, session);
      const descriptions = line.all('description');
      const served = images.map((image, index): ServedImage => ({
        image,
        name: names[index],
        description: descriptions[index],
        bitmaps: line.all('bitmap'),
      }));
      const server = await serve(served, {
        nbd: addresses,
        vhostUserBlk: line.all('vhostUserBlk'),
        pollMicroseconds,
        workers,
        processors,
        tls,
        connections: most === 0 ? undefined : most,
        onProblem: (why) => {
          session.complain(`${session.name}: a connection was closed: ${why}\n`);
        },
      });
      const named = images.map((image, index) => ({ image, given: line.operands[index] }));
      const endDisplay = displayStats(session, named, line.has('stats'));
      await runUntilTheEnd(server, names, line, session);
      await endDisplay();
    } finally {
      await opened.close();
    }
    return 0;
  },
};

async function runUntilTheEnd(
  server: Server,
  names: readonly string[],
  line: Line,
  session: Session,
): Promise<void> {
  const pidFile = line.last('pidFile');
  let isWritten = false;
  try {
    if (pidFile !== undefined) await writePidFile(pidFile);
    isWritten = true;
    for (const address of server.addresses) {
      const isSecured = line.has('tlsCreds');
      for (const name of names) {
        await session.print(`Serving at ${uriOf(address, name, isSecured)}\n`);
      }
    }
    for (const device of server.devices) {
      await session.print(`Serving a block device at ${device}\n`);
    }
    await session.flush();
    if (line.has('fork')) leaveForeground();
    const ends: Promise<void>[] = [server.failed, interrupted(session)];
    if (line.has('once')) ends.push(server.left);
    await Promise.race(ends);
  } finally {
    await server.close();
    if (pidFile !== undefined && isWritten) await unlink(pidFile).catch(() => undefined);
  }
}

/** Makes a new file; one that a server has left behind is replaced, and nothing else. */
async function writePidFile(file: string): Promise<void> {
  try {
    const found = await lstat(file).catch(() => undefined);
    const isLeftOver =
      found?.isFile() === true && found.size < 20 && /^\d+\n$/.test(await readFile(file, 'utf8'));
    if (isLeftOver) await unlink(file);
    await writeFile(file, `${process.pid}\n`, { flag: 'wx' });
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    throw new CliError(`Failed to create pid file '${file}': ${describeErrno(code)}`);
  }
}

function addressesOf(line: Line): readonly string[] {
  const addresses = [...line.all('nbd'), ...line.all('socket').map((name) => `unix:${name}`)];
  const host = line.last('bind');
  const port = line.last('port');
  if (host !== undefined || port !== undefined) {
    const bracketed = host?.includes(':') === true ? `[${host}]` : (host ?? '');
    addresses.push(port === undefined ? `tcp:${bracketed}` : `tcp:${bracketed}:${port}`);
  }
  const isElsewhere = addresses.length > 0 || line.has('vhostUserBlk');
  if (!isElsewhere) addresses.push(...givenSockets());
  if (isElsewhere || addresses.length > 0) return addresses;
  throw usageError('serve', 'Expecting an address to serve at, such as --nbd unix:disk.sock');
}

/** Sockets that the one listens at who has started this program (sd_listen_fds(3)). */
function givenSockets(): readonly string[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  if (pid !== String(process.pid) || !/^\d{1,3}$/.test(count ?? '')) return [];
  return Array.from({ length: Number(count) }, (_, index) => `fd:${3 + index}`);
}

/** The names of the images, in their order. */
function namesOf(line: Line): readonly string[] {
  const { operands } = line;
  const given = line.all('name');
  if (operands.length === 0) throw usageError('serve', 'Expecting at least one image file name');
  if (given.length > operands.length || line.all('description').length > operands.length) {
    throw usageError('serve', 'More names or descriptions than images');
  }
  return operands.map(
    (operand, index) => given[index] ?? (operands.length === 1 ? '' : path.basename(operand)),
  );
}

/** Where clients find an export (NBD's doc/uri.md). */
function uriOf(address: string, name: string, isSecured: boolean): string {
  const scheme = isSecured ? 'nbds' : 'nbd';
  const exportName = encodeURIComponent(name);
  if (address.startsWith('unix:')) {
    const socket = address.slice('unix:'.length).split('/').map(encodeURIComponent).join('/');
    return `${scheme}+unix:///${exportName}?socket=${socket}`;
  }
  if (address.startsWith('tcp:')) {
    const place = address.slice('tcp:'.length);
    // Who listens everywhere is found here too.
    return `${scheme}://${place.startsWith(':') ? 'localhost' : ''}${place}/${exportName}`;
  }
  return `${address} ${name}`.trimEnd();
}
