/** Small requests of `cowherd bench`, against `qemu-img bench` with its best engine and the bare file. */
import path from 'node:path';
import { type ImageFormat, openImage } from '../../src/index.js';
import type { Duel, Runner } from '../duel.js';
import { benchQemu, settle } from '../programs.js';
import { type Prepare, benchRunner, makeFull, nothing, withEmptyImage } from '../request-runs.js';

const gib = 1024 ** 3;
/** 4 KiB steps that visit the disk in an order no readahead can follow. */
const scattered = 4096 * 104_729;
/** Bytes of the writes that fill a disk, as of a guest. */
const fillBytes = 65536;

interface Pattern {
  readonly write: boolean;
  readonly depth: number;
  readonly count: number;
  readonly bytes: number;
  readonly step: number;
}

/** Duels over a cached image of 2 GiB, a bare file that was filled alike, and an empty image of 64 GiB. */
export async function requestDuels(folder: string): Promise<Duel[]> {
  const [full, bare, empty, recorded] = [
    'requests.qcow2',
    'requests.raw',
    'empty.qcow2',
    'recorded.qcow2',
  ].map((name) => path.join(folder, name));
  await makeFull(full, 'qcow2', 2 * gib, fillBytes);
  await makeFull(bare, 'raw', 2 * gib, fillBytes);
  await makeFull(recorded, 'qcow2', 2 * gib, fillBytes);
  await addBitmap(recorded);
  const read = { write: false, bytes: 4096, step: scattered };
  const overwrite = { write: true, bytes: 4096, step: scattered, depth: 64, count: 150_000 };
  const fresh = withEmptyImage(empty);
  const against = (name: string, goal: number, file: string, pattern: Pattern): Duel => {
    const prepare = file === empty ? fresh : pattern.write ? settle : nothing;
    const peer: Runner = {
      label: 'qemu-img bench',
      run: () => benchQemu(prepare, '-f', 'qcow2', ...wordsOf(pattern), file),
    };
    return { name, unit: 'op/s', goal, ours: ours('qcow2', file, pattern, prepare), peer };
  };
  return [
    against('cached 4 KiB reads, depth 64', 1.5, full, { ...read, depth: 64, count: 600_000 }),
    against('cached 4 KiB reads, depth 1', 1.2, full, { ...read, depth: 1, count: 300_000 }),
    against('4 KiB overwrites, depth 64', 1, full, overwrite),
    {
      ...{ name: '4 KiB overwrites, depth 64, of the bare file', unit: 'op/s', goal: 0.85 },
      ours: ours('qcow2', full, overwrite, settle),
      peer: ours('raw', bare, overwrite, settle),
    },
    {
      ...{ name: '4 KiB overwrites, depth 64, while a bitmap records', unit: 'op/s', goal: 0.97 },
      ours: ours('qcow2', recorded, overwrite, settle),
      peer: { ...ours('qcow2', full, overwrite, settle), label: 'without a bitmap' },
    },
    against('4 KiB writes to unallocated clusters, depth 64', 5, empty, {
      ...{ write: true, depth: 64, count: 60_000, bytes: 4096, step: 65536 * 9973 },
    }),
    against('64 KiB sequential allocating writes, depth 64', 1.6, empty, {
      ...{ write: true, depth: 64, count: 16_384, bytes: 65536, step: 65536 },
    }),
  ].map((duel) => ({ ...duel, unit: 'op/s', rounds: 5 }));
}

async function addBitmap(file: string): Promise<void> {
  await using image = await openImage(file);
  await image.bitmaps.add('since', { granularity: 4096 });
}

function wordsOf({ write, depth, count, bytes, step }: Pattern): string[] {
  const numbers = ['-d', depth, '-c', count, '-s', bytes, '-S', step].map(String);
  return write ? ['-w', ...numbers] : numbers;
}

function ours(format: ImageFormat, file: string, pattern: Pattern, prepare: Prepare): Runner {
  const label = format === 'raw' ? 'the bare file through the same ring' : 'cowherd bench';
  return benchRunner(label, prepare, ['-f', format, ...wordsOf(pattern), file]);
}
