/** Images as block devices of virtual machines, through one and several virtqueues, against QEMU's export. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { compile } from '../bare-program.js';
import type { Duel, Figure, Runner } from '../duel.js';
import { runProgram, warm } from '../programs.js';
import { benchRunner, makeFull, nothing } from '../request-runs.js';
import { type StartServer, cowherdDevice, qemuDevice } from '../servers.js';

const gib = 1024 ** 3;
/** Requests of a queue under way at a time. */
const depth = 32;
const seconds = 2;

interface Load {
  readonly kind: 'read' | 'write';
  readonly queues: number;
  readonly depth: number;
  /** What is made of requests a second, and of the median and the 99th percentile of what one takes. */
  readonly figure: (perSecond: number, median: number, late: number) => number;
}

const perSecond: Load['figure'] = (requests) => requests;

/** Duels of devices, in a folder. */
export async function vhostUserDuels(folder: string): Promise<Duel[]> {
  const driver = await compile('virtqueue-load', folder);
  if (driver === undefined) return [];
  const image = path.join(folder, 'device.qcow2');
  await makeFull(image, 'qcow2', gib, 1 << 20);
  await warm(image);
  const run = (
    label: string,
    start: StartServer,
    load: Load,
    prepare?: () => Promise<void>,
  ): Runner => ({
    label,
    run: async () => {
      await prepare?.();
      return await loaded(driver, start, folder, load);
    },
  });
  const duels: Duel[] = [];
  for (const queues of [1, 2, 4]) {
    const what = `vhost-user, ${queues} queue${queues > 1 ? 's' : ''}, 4 KiB random`;
    for (const [kind, name] of [
      ['read', 'reads'],
      ['write', 'overwrites'],
    ] as const) {
      const load: Load = { kind, queues, depth, figure: perSecond };
      duels.push({
        ...{ name: `${what} ${name}`, unit: 'op/s', goal: 1.5 },
        ours: run('cowherd', cowherdDevice(image, Math.min(2, queues)), load),
        peer: run('qemu-storage-daemon', qemuDevice(image), load),
      });
    }
  }
  for (const [kind, name, words] of [
    ['read', 'reads', []],
    ['write', 'overwrites', ['-w']],
  ] as const) {
    const load: Load = { kind, queues: 1, depth, figure: perSecond };
    const bench = ['-f', 'qcow2', '--pattern', 'rand', '-d', String(depth), '-s', '4096', ...words];
    const counted = ['-c', kind === 'read' ? '1000000' : '60000', image];
    duels.push({
      ...{ unit: 'op/s', goal: 0.7 },
      name: `vhost-user, 1 queue, 4 KiB random ${name}, of the library by itself`,
      ours: run('cowherd', cowherdDevice(image, 1), load),
      peer: benchRunner('cowherd bench', nothing, [...bench, ...counted]),
    });
  }
  const empty = path.join(folder, 'empty.qcow2');
  const makeEmpty = async (): Promise<void> => {
    await rm(empty, { force: true });
    await runProgram('qemu-img', ['create', '-q', '-f', 'qcow2', empty, '64G']);
  };
  for (const queues of [1, 4]) {
    const load: Load = { kind: 'write', queues, depth, figure: perSecond };
    const workers = Math.min(2, queues);
    duels.push({
      ...{ unit: 'op/s', goal: 5 },
      name: `vhost-user, ${queues} queue${queues > 1 ? 's' : ''}, writes to an empty image of 64 GiB`,
      ours: run('cowherd', cowherdDevice(empty, workers), load, makeEmpty),
      peer: run('qemu-storage-daemon', qemuDevice(empty), load, makeEmpty),
    });
  }
  for (const [name, figure] of [
    ['the median', (_, median) => median],
    ['the 99th percentile', (_, __, late) => late],
  ] as const satisfies readonly (readonly [string, Load['figure']])[]) {
    // A hundred thousand times microseconds, in seconds.
    const load: Load = {
      ...{ kind: 'read', queues: 1, depth: 1 },
      figure: (...taken) => figure(...taken) / 10,
    };
    duels.push({
      ...{ name: `vhost-user, 100,000 reads one by one at ${name}`, unit: 's', goal: 1 },
      ours: run('cowherd', cowherdDevice(image, 1), load),
      peer: run('qemu-storage-daemon', qemuDevice(image), load),
    });
  }
  return duels;
}

async function loaded(
  driver: string,
  start: StartServer,
  folder: string,
  { kind, queues, depth: each, figure }: Load,
): Promise<Figure> {
  const socket = path.join(folder, 'device.sock');
  const server = await start(socket);
  try {
    const before = await server.processorSeconds();
    const words = [socket, kind, ...[queues, each, seconds].map(String)];
    const { stdout } = await runProgram(driver, words);
    const [requests, median, late] = stdout.trim().split(' ').map(Number);
    const processorSeconds = (await server.processorSeconds()) - before;
    return { figure: figure(requests, median, late), processorSeconds };
  } finally {
    await server.stop();
  }
}
