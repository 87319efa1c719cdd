/** Small requests through the library against `qemu-img bench` with its best engine. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createImage, openImage } from '../../src/index.js';
import type { Duel, Runner } from '../duel.js';
import { benchQemu, runProgram, settle } from '../programs.js';

const gib = 1024 ** 3;
const requests = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', 'requests.js');
/** 4 KiB steps that visit the disk in an order no readahead can follow. */
const scattered = 4096 * 104_729;

interface Pattern {
  readonly write: boolean;
  readonly depth: number;
  readonly count: number;
  readonly bytes: number;
  readonly step: number;
}

/** Duels over a cached 4 GiB image and an empty one of 64 GiB in a folder. */
export async function requestDuels(folder: string): Promise<Duel[]> {
  const full = path.join(folder, 'requests.qcow2');
  await fillImage(full, 4 * gib);
  const empty = path.join(folder, 'empty.qcow2');
  const read = { write: false, bytes: 4096, step: scattered };
  const overwrite = { write: true, bytes: 4096, step: scattered };
  return [
    cached('cached 4 KiB reads, depth 64', full, { ...read, depth: 64, count: 600_000 }, 1.5),
    cached('cached 4 KiB reads, depth 1', full, { ...read, depth: 1, count: 300_000 }, 1.2),
    cached('4 KiB overwrites, depth 64', full, { ...overwrite, depth: 64, count: 150_000 }, 2.5),
    allocating(
      '4 KiB writes to unallocated clusters, depth 64',
      empty,
      { write: true, depth: 64, count: 60_000, bytes: 4096, step: 65536 * 9973 },
      5,
    ),
    allocating(
      '64 KiB sequential allocating writes, depth 64',
      empty,
      { write: true, depth: 64, count: 16_384, bytes: 65536, step: 65536 },
      1.5,
    ),
  ];
}

async function fillImage(file: string, size: number): Promise<void> {
  await createImage(file, { format: 'qcow2', size });
  await using image = await openImage(file);
  const chunk = new Uint8Array(1 << 20);
  for (let offset = 0; offset < size; offset += chunk.length) {
    chunk.fill(((offset / chunk.length) % 255) + 1);
    await image.write(chunk, offset);
  }
}

function cached(name: string, file: string, pattern: Pattern, goal: number): Duel {
  const before = pattern.write ? settle : (): Promise<void> => Promise.resolve();
  return {
    name,
    unit: 'op/s',
    goal,
    rounds: 3,
    ours: ours(file, pattern, before),
    peer: qemu(file, pattern, before),
  };
}

/** Each run begins with a fresh image. */
function allocating(name: string, file: string, pattern: Pattern, goal: number): Duel {
  const before = async (): Promise<void> => {
    await rm(file, { force: true });
    await settle();
    await createImage(file, { format: 'qcow2', size: 64 * gib });
  };
  return {
    name,
    unit: 'op/s',
    goal,
    ours: ours(file, pattern, before),
    peer: qemu(file, pattern, before),
  };
}

function ours(file: string, pattern: Pattern, before: () => Promise<void>): Runner {
  const { write, depth, count, bytes, step } = pattern;
  return {
    label: 'cowherd',
    run: async () => {
      await before();
      const numbers = [depth, count, bytes, step].map(String);
      const { stdout } = await runProgram(process.execPath, [
        requests,
        file,
        write ? 'write' : 'read',
        ...numbers,
      ]);
      return Number(stdout);
    },
  };
}

function qemu(file: string, pattern: Pattern, before: () => Promise<void>): Runner {
  const { write, depth, count, bytes, step } = pattern;
  const numbers = ['-d', depth, '-c', count, '-s', bytes, '-S', step].map(String);
  return {
    label: 'qemu-img bench',
    run: () => benchQemu(before, '-f', 'qcow2', ...(write ? ['-w'] : []), ...numbers, file),
  };
}
