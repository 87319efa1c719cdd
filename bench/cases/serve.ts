/** Images served to NBD clients through one and several connections, against other servers. */
import path from 'node:path';
import { truncate } from 'node:fs/promises';
import type { Duel, Runner } from '../duel.js';
import {
  type StartServer,
  cowherdServing,
  nbdkitServing,
  qemuServing,
  withServer,
} from '../servers.js';
import { runProgram, warm } from '../programs.js';
import { makeFull } from '../request-runs.js';

const gib = 1024 ** 3;
/** Requests of all connections of a run. */
const requests = 200_000;
/** Requests of a connection under way at a time. */
const depth = 32;

/** Duels of servers, in a folder. */
export async function serveDuels(folder: string): Promise<Duel[]> {
  const image = path.join(folder, 'served.qcow2');
  const bare = path.join(folder, 'served.raw');
  await makeFull(image, 'qcow2', gib, 1 << 20);
  await makeFull(bare, 'raw', gib, 1 << 20);
  await warm(image);
  await warm(bare);
  const duels: Duel[] = [];
  for (const connections of [1, 2, 4]) {
    const ours = cowherdServing(['-f', 'qcow2', image], Math.min(2, connections));
    const what = `NBD, ${connections} connection${connections > 1 ? 's' : ''}, 4 KiB`;
    for (const [kind, name] of [
      ['randread', 'random reads'],
      ['randwrite', 'random overwrites'],
    ] as const) {
      const loaded = (label: string, start: StartServer): Runner =>
        loadRunner(label, start, folder, kind, connections);
      duels.push(
        duel(
          `${what} ${name}`,
          loaded('cowherd', ours),
          loaded('qemu-nbd', qemuServing(['-f', 'qcow2', image])),
          1.5,
        ),
      );
      if (kind === 'randread' && (await hasProgram('nbdkit'))) {
        const goal = connections > 1 ? 1 : 0.5;
        const peer = loaded('nbdkit on the raw file', nbdkitServing(bare));
        duels.push(duel(`${what} ${name}, of the raw file`, loaded('cowherd', ours), peer, goal));
      }
    }
  }
  if (await hasProgram('nbdcopy')) duels.push(...(await copyDuels(folder)));
  return duels;
}

function duel(name: string, ours: Runner, peer: Runner, goal: number): Duel {
  return { name, unit: 'op/s', ours, peer, goal };
}

/** fio's own client, a connection for each job. */
function loadRunner(
  label: string,
  start: StartServer,
  folder: string,
  kind: string,
  connections: number,
): Runner {
  return {
    label,
    run: () =>
      withServer(start, folder, async (uri) => {
        const { stdout } = await runProgram('fio', [
          ...['--name=load', '--ioengine=nbd', `--uri=${uri}`, `--rw=${kind}`, '--bs=4k'],
          ...[`--iodepth=${depth}`, `--numjobs=${connections}`, '--thread', '--group_reporting'],
          ...['--size=1g', `--io_size=${Math.floor(requests / connections) * 4096}`],
          ...['--randrepeat=0', '--norandommap', '--output-format=json'],
        ]);
        const json = stdout.slice(stdout.indexOf('{'));
        const { jobs } = JSON.parse(json) as {
          jobs: { read: { iops: number }; write: { iops: number } }[];
        };
        return jobs[0].read.iops + jobs[0].write.iops;
      }),
  };
}

/** `nbdcopy` of 4 GiB, half of it data, into an image and out of it. */
async function copyDuels(folder: string): Promise<Duel[]> {
  const source = path.join(folder, 'half.raw');
  await makeFull(source, 'raw', 2 * gib, 1 << 20);
  await truncate(source, 4 * gib);
  const image = path.join(folder, 'copied.qcow2');
  await makeFull(image, 'qcow2', 4 * gib, 1 << 20);
  const copy = (label: string, start: StartServer, isInto: boolean): Runner => ({
    label,
    run: () =>
      withServer(start, folder, async (uri) => {
        const ends = isInto ? [source, uri] : [uri, 'null:'];
        return (await runProgram('nbdcopy', ['--connections=4', ...ends])).seconds;
      }),
  });
  const ours = cowherdServing(['-f', 'qcow2', image], 2);
  const peer = qemuServing(['-f', 'qcow2', image]);
  return [
    { isInto: false, what: 'nbdcopy of 4 GiB out of an image, 4 connections' },
    { isInto: true, what: 'nbdcopy of 4 GiB into an image, 4 connections' },
  ].map(({ isInto, what }) => ({
    name: what,
    unit: 's',
    goal: 1.2,
    ours: copy('cowherd', ours, isInto),
    peer: copy('qemu-nbd', peer, isInto),
  }));
}

async function hasProgram(name: string): Promise<boolean> {
  return await runProgram(name, ['--version']).then(
    () => true,
    () => false,
  );
}
