/** Conversions and comparisons against qemu-img, with the better of its defaults and its best options. */
import { type ChildProcess, spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { compile } from '../bare-program.js';
import { filesMib, halfFullMib, makeChain, makeHalfFull, makeOfFiles, smallMib } from '../disks.js';
import type { Duel, Runner } from '../duel.js';
import { type Taken, settle, take, takeCowherd, takeQemu, timeQemu } from '../programs.js';
import {
  type Conversion,
  Target,
  best,
  bestLabel,
  convertOnce,
  converting,
  figureOf,
  rounds,
  runBest,
  secondsBeyondStart,
} from './conversion.js';

const there = ['-f', 'raw', '-O', 'qcow2'];
const back = ['-f', 'qcow2', '-O', 'raw'];
const direct = ['-t', 'none', '-T', 'none'];
const zstd = ['-o', 'compression_type=zstd'];

/** Duels over a 4 GiB disk half full, a small one, 1 GiB of files, and an empty TiB. */
export async function convertDuels(folder: string): Promise<Duel[]> {
  const inFolder = (name: string): string => path.join(folder, name);
  const [raw, qcow2, small, smallQcow2] = [
    'half.raw',
    'half.qcow2',
    'small.raw',
    'small.qcow2',
  ].map(inFolder);
  const files = inFolder('files.raw');
  const target = new Target(inFolder('target'), await compile('host-memory', folder));
  await makeHalfFull(raw, halfFullMib);
  await timeQemu('convert', ...there, raw, qcow2);
  await makeHalfFull(small, smallMib);
  await timeQemu('convert', ...there, small, smallQcow2);
  await makeOfFiles(files, filesMib);
  const chain = await makeChain(folder, halfFullMib / 2);
  await settle();
  const duel = (name: string, goal: number, words: readonly string[], source: string): Duel =>
    converting(name, goal, { words, source, target });
  const same = ['-f', 'qcow2', '-O', 'qcow2'];
  const rawToRaw = ['-f', 'raw', '-O', 'raw', '-S', '4k'];
  const duels = [
    duel('convert raw → qcow2, 4 GiB half full', 1.5, there, raw),
    duel('convert qcow2 → raw, 4 GiB half full', 1.5, back, qcow2),
    duel('convert qcow2 → qcow2', 1.4, same, qcow2),
    duel('convert raw → raw, no blocks shared', 1.4, rawToRaw, raw),
    { ...duel('convert raw → qcow2, direct', 1.1, [...there, ...direct], raw), rounds: 3 },
    { ...duel('convert qcow2 → raw, direct', 1.1, [...back, ...direct], qcow2), rounds: 3 },
    duel('convert a chain of 3, half in each', 1.2, back, chain),
    beyondStart('convert raw → qcow2, 256 MiB of data', { words: there, source: small, target }),
    beyondStart('convert qcow2 → raw, 256 MiB of data', {
      ...{ words: back, source: smallQcow2, target },
    }),
    comparing('compare 4 GiB, equal', 1.5, raw, qcow2),
    ...(await limitDuels(folder, { words: there, source: raw, target })),
    busy(duel('convert raw → qcow2, every core busy', 0.9, there, raw)),
    busy(duel('convert qcow2 → raw, every core busy', 0.9, back, qcow2)),
    busy(comparing('compare 4 GiB, every core busy', 0.9, raw, qcow2)),
    { ...duel('compress 1 GiB, zlib', 1.8, [...there, '-c'], files), rounds: 3 },
    { ...duel('compress 1 GiB, zstd', 1.5, [...there, '-c', ...zstd], files), rounds: 3 },
  ];
  for (const type of ['zlib', 'zstd']) {
    const packed = inFolder(`files.${type}.qcow2`);
    const option = `compression_type=${type}`;
    await timeQemu('convert', ...there, '-c', ...best, '-o', option, files, packed);
    duels.push(duel(`decompress ${type}`, 1.5, back, packed));
  }
  duels.push(await emptyDuel(folder, target));
  return duels;
}

function comparing(name: string, goal: number, raw: string, qcow2: string): Duel {
  const words = ['compare', '-f', 'raw', '-F', 'qcow2', raw, qcow2];
  return {
    ...{ name, unit: 's', goal, rounds, countsProcessor: true },
    ours: { label: 'cowherd', run: async () => figureOf(await takeCowherd(...words)) },
    peer: { label: 'qemu-img', run: async () => figureOf(await takeQemu(...words)) },
  };
}

/** What is converted so soon that Node's start is much of it: what comes beyond that is compared. */
function beyondStart(name: string, conversion: Conversion): Duel {
  const ours = (): Promise<Taken> => convertOnce(conversion);
  const theirs = runBest(conversion);
  return {
    ...{ name: `${name}, beyond Node’s start`, unit: 's', goal: 1, rounds },
    ours: { label: 'cowherd', run: () => secondsBeyondStart(ours) },
    peer: { label: bestLabel(conversion), run: async () => (await theirs()).seconds },
  };
}

/** Against a bare program that does the same copying; none where there is no C compiler. */
async function limitDuels(folder: string, conversion: Conversion): Promise<Duel[]> {
  const { source, target } = conversion;
  const limit = await compile('copy-limit', folder);
  if (limit === undefined) return [];
  return [
    {
      name: 'convert raw → qcow2 beyond Node’s start, of a bare C program',
      ...{ unit: 's', goal: 1 / 1.15, rounds },
      ours: { label: 'cowherd', run: () => secondsBeyondStart(() => convertOnce(conversion)) },
      peer: {
        label: 'copy-limit.c',
        run: async () => {
          await target.makeRoom();
          return (await take(limit, source, target.filename)).seconds;
        },
      },
    },
  ];
}

/** The same while other programs keep every core busy. */
function busy(duel: Duel): Duel {
  const underLoad = (runner: Runner): Runner => ({
    label: runner.label,
    run: async () => {
      const load: ChildProcess[] = Array.from({ length: availableParallelism() }, () =>
        spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }),
      );
      try {
        return await runner.run();
      } finally {
        for (const program of load) program.kill('SIGKILL');
      }
    },
  });
  return {
    ...duel,
    ours: underLoad(duel.ours),
    peer: underLoad(duel.peer),
    countsProcessor: false,
  };
}

async function emptyDuel(folder: string, target: Target): Promise<Duel> {
  const empty = path.join(folder, 'tib.qcow2');
  await timeQemu('create', '-q', '-f', 'qcow2', empty, '1T');
  const ours = (): Promise<Taken> => takeCowherd('convert', '-O', 'qcow2', empty, target.filename);
  return {
    name: 'convert an empty TiB: seconds beyond Node’s start, of 0.2',
    unit: 's',
    goal: 1,
    ours: { label: 'cowherd', run: () => secondsBeyondStart(ours) },
    peer: { label: 'the bound', run: () => Promise.resolve(0.2) },
  };
}
