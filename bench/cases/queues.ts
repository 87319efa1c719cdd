/**
 * One and several queues on one image, against the bare file with the same ring, and against
 * `qemu-img bench`, which has one queue.
 */
import { rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createImage, openImage } from '../../src/index.js';
import type { Duel, Runner } from '../duel.js';
import { benchQemu, runProgram, settle, timeCowherd, warm } from '../programs.js';
import { benchRunner, makeFull, nothing, withEmptyImage } from '../request-runs.js';

const hotPath = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', 'hot-path.js');
const gib = 1024 ** 3;
/** 4 KiB writes this far apart meet another cluster each, in an order no readahead can follow. */
const scattered = 65536 * 9973;

/** Duels of queues, in a folder. */
export async function queueDuels(folder: string): Promise<Duel[]> {
  const full = path.join(folder, 'full.qcow2');
  const bare = path.join(folder, 'full.raw');
  await makeFull(full, 'qcow2', gib, 1 << 20);
  await makeFull(bare, 'raw', gib, 1 << 20);
  await warm(full);
  await warm(bare);
  return [
    ...readDuels(full, bare, 'writeback', 500_000),
    ...readDuels(full, bare, 'none', 60_000),
    ...allocatingDuels(path.join(folder, 'empty.qcow2'), path.join(folder, 'empty.raw')),
    ...mixedDuels(path.join(folder, 'mixed.qcow2'), path.join(folder, 'mixed.raw')),
    hotPathDuel(full),
    convertDuel(folder),
  ];
}

/** Random reads of 4 KiB: the format against none, and two queues against one. */
function readDuels(full: string, bare: string, cache: string, count: number): Duel[] {
  const words = (queues: number): string[] => [
    ...['-t', cache, '-c', String(count), '--pattern', 'rand', '--queues', String(queues)],
  ];
  const image = (queues: number): Runner =>
    benchRunner(`${queues} on qcow2`, nothing, [...words(queues), '-f', 'qcow2', full]);
  const file = (queues: number): Runner =>
    benchRunner(`${queues} on the bare file`, nothing, [...words(queues), '-f', 'raw', bare]);
  const what = cache === 'none' ? 'O_DIRECT random reads' : 'cached random reads';
  return [
    duel(`${what}, 1 queue, of the bare file`, image(1), file(1), 0.85),
    duel(`${what}, 2 queues, of the bare file`, image(2), file(2), 0.85),
    duel(`${what}, 2 queues, of one`, image(2), image(1), 1.7),
    // What the machine and its kernel give: no format is in the way here.
    duel(`${what}, the bare file’s own scaling`, file(2), file(1), 1.7),
  ];
}

/** 4 KiB into clusters that are not allocated, by two queues. */
function allocatingDuels(image: string, bare: string): Duel[] {
  const count = 60_000;
  const pattern = ['-c', String(count), '-S', String(scattered)];
  const fresh = withEmptyImage(image);
  const freshBare = async (): Promise<void> => {
    await rm(bare, { force: true });
    await settle();
    await writeFile(bare, '');
    await truncate(bare, 64 * gib);
  };
  const words = ['-w', ...pattern, '-f', 'qcow2', image];
  const ours = benchRunner('2 queues', fresh, ['--queues', '2', ...words]);
  const one = benchRunner('1 queue', fresh, words);
  const file = benchRunner('the bare file', freshBare, [
    ...['-w', '--queues', '2', ...pattern, '-f', 'raw', bare],
  ]);
  const qemu: Runner = {
    label: 'qemu-img bench',
    run: () => benchQemu(fresh, '-w', ...pattern, '-f', 'qcow2', image),
  };
  const what = 'writes to unallocated clusters, 2 queues';
  return [
    duel(what, ours, qemu, 8),
    duel(`${what}, of the bare file`, ours, file, 0.7),
    duel(`${what}, of one`, ours, one, 1),
  ];
}

/** Reads and writes on an image whose every other cluster is allocated, with flushes. */
function mixedDuels(image: string, bare: string): Duel[] {
  const count = 60_000;
  const half = async (file: string, format: 'qcow2' | 'raw'): Promise<void> => {
    await rm(file, { force: true });
    await createImage(file, { format, size: 2 * gib });
    const open = await openImage(file, { format });
    const cluster = new Uint8Array(65536).fill(7);
    for (let at = 0; at < 2 * gib; at += 2 * cluster.length) await open.write(cluster, at);
    await open.close();
    await settle();
  };
  const fresh = (): Promise<void> => half(image, 'qcow2');
  const words = [
    ...['-w', '-c', String(count), '--read-percent', '70', '--pattern', 'rand'],
    // Of 213 requests 64 write.
    ...['--flush-interval', '213', '--queues', '2'],
  ];
  const ours = benchRunner('2 queues', fresh, [...words, '-f', 'qcow2', image]);
  const file = benchRunner('the bare file', () => half(bare, 'raw'), [...words, '-f', 'raw', bare]);
  // A step that is no multiple of the cluster meets allocated and unallocated ones alike.
  const step = String(4096 * 104_729);
  const qemu: Runner = {
    label: 'qemu-img bench, 70 parts read, 30 written',
    run: async () => {
      const reads = await benchQemu(fresh, '-c', String(count), '-S', step, image);
      const writes = await benchQemu(
        fresh,
        ...['-w', '--flush-interval', '64', '-c', String(count / 4), '-S', step, image],
      );
      return 1 / (0.7 / reads + 0.3 / writes);
    },
  };
  const what = '70/30 random, a flush every 64 writes, 2 queues';
  return [duel(what, ours, qemu, 1), duel(`${what}, of the bare file`, ours, file, 1)];
}

/** What one request costs in JavaScript, against the bound. */
function hotPathDuel(image: string): Duel {
  return {
    name: 'microseconds of JavaScript a mapped, cached read, depth 64',
    unit: 's',
    goal: 1,
    ours: {
      label: 'cowherd',
      run: async () => Number((await runProgram(process.execPath, [hotPath, image])).stdout),
    },
    peer: { label: 'the bound', run: () => Promise.resolve(1) },
  };
}

/** A conversion with two queues must not be slower than with one. */
function convertDuel(folder: string): Duel {
  const source = path.join(folder, 'full.qcow2');
  const target = path.join(folder, 'converted.qcow2');
  const convert = (queues: number): Runner => ({
    label: `${queues} queue${queues > 1 ? 's' : ''}`,
    run: async () => {
      await rm(target, { force: true });
      await settle();
      return timeCowherd('convert', '-O', 'qcow2', '--queues', String(queues), source, target);
    },
  });
  return {
    name: 'convert with 2 queues',
    unit: 's',
    ours: convert(2),
    peer: convert(1),
    goal: 1,
    rounds: 9,
  };
}

function duel(name: string, ours: Runner, peer: Runner, goal: number): Duel {
  return { name, unit: 'op/s', ours, peer, goal, rounds: 3 };
}
