/**
 * Requests a second on a bare file, by engine: `node dist/bench/raw-ring.js [file] [MiB]`.
 * What `auto` does for each operation was chosen by this table. The best of several rounds counts,
 * since other work on the machine only ever makes a round slower.
 */
import fs from 'node:fs';
import path from 'node:path';
import { addon } from '../src/native/addon.js';
import { alignedBuffer } from '../src/native/aligned-buffer.js';
import type { EngineName } from '../src/native/ring.js';
import { createFilePosix, openFilePosix } from '../src/storage/file/file-posix.js';
import type { CacheMode, Completion, StorageFile } from '../src/storage/storage.js';

const blockBytes = 4096;
const rounds = 5;
const roundMs = 400;

/** One line of the table. */
interface Workload {
  readonly name: string;
  readonly cache: CacheMode;
  readonly depth: number;
  readonly write: boolean;
  /** Through promises, as `await file.read()`, instead of completions. */
  readonly awaited?: boolean;
}

const workloads: readonly Workload[] = [
  { name: 'cached read', cache: 'writeback', depth: 64, write: false },
  { name: 'cached read', cache: 'writeback', depth: 1, write: false },
  { name: 'cached read, awaited', cache: 'writeback', depth: 64, write: false, awaited: true },
  { name: 'cached read, awaited', cache: 'writeback', depth: 1, write: false, awaited: true },
  { name: 'cached overwrite', cache: 'writeback', depth: 64, write: true },
  { name: 'cached overwrite', cache: 'writeback', depth: 1, write: true },
  { name: 'direct read', cache: 'none', depth: 64, write: false },
  { name: 'direct read', cache: 'none', depth: 1, write: false },
  { name: 'direct overwrite', cache: 'none', depth: 64, write: true },
  { name: 'direct overwrite', cache: 'none', depth: 1, write: true },
];

/** Places in the file, in a random order that is the same every time. */
class Places {
  readonly #blocks: number;
  #state = 12_345;

  constructor(fileBytes: number) {
    this.#blocks = fileBytes / blockBytes;
  }

  next(): number {
    this.#state = (Math.imul(this.#state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return ((this.#state >> 4) % this.#blocks) * blockBytes;
  }
}

/**
 * Fills a file, past the page cache, and brings it into the cache block by block in a scattered
 * order where that is asked for. Read or written in sequence the cache would hold large folios, and
 * ext4 looks at every block of a folio for each write into it: a fifth of the speed, for whatever
 * program.
 */
async function prepare(filename: string, fileBytes: number, cached: boolean): Promise<void> {
  const file = await createFilePosix(addon!, filename, { cache: 'none' });
  const chunk = new Uint8Array(1 << 20).fill(1);
  for (let offset = 0; offset < fileBytes; offset += chunk.length) await file.write(chunk, offset);
  await file.flush();
  await file.close();
  if (!cached) return;
  const reader = await openFilePosix(addon!, filename, { readOnly: true });
  const blocks = fileBytes / blockBytes;
  const stride = 7919;
  for (let index = 0; index < blocks; index += 64) {
    const reads = Array.from({ length: 64 }, (_, step) =>
      reader.read(new Uint8Array(blockBytes), (((index + step) * stride) % blocks) * blockBytes),
    );
    await Promise.all(reads);
  }
  await reader.close();
}

/** Runs for a while. @returns requests a second */
async function measure(file: StorageFile, places: Places, workload: Workload): Promise<number> {
  let done = 0;
  const start = performance.now();
  const end = start + roundMs;
  const chain = async (): Promise<void> => {
    const buffer = alignedBuffer(blockBytes);
    while ((done & 63) !== 0 || performance.now() < end) {
      if (workload.write) await file.write(buffer, places.next());
      else await file.read(buffer, places.next());
      done += 1;
    }
  };
  const submissions = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const buffer = alignedBuffer(blockBytes);
      const submit = (completion: Completion): void => {
        if (workload.write) file.submitWrite(buffer, places.next(), completion);
        else file.submitRead(buffer, places.next(), completion);
      };
      submit({
        complete(error): void {
          done += 1;
          if (error !== null) reject(error);
          else if ((done & 63) === 0 && performance.now() >= end) resolve();
          else submit(this);
        },
      });
    });
  const one = workload.awaited === true ? chain : submissions;
  const chains = Array.from({ length: workload.depth }, one);
  if (workload.awaited === true) await Promise.all(chains);
  else await Promise.race(chains);
  return done / ((performance.now() - start) / 1000);
}

async function run(filename: string, fileBytes: number, engine: EngineName): Promise<number[]> {
  const results: number[] = [];
  for (const workload of workloads) {
    await prepare(filename, fileBytes, workload.cache === 'writeback');
    const file = await openFilePosix(addon!, filename, { aio: engine, cache: workload.cache });
    const places = new Places(fileBytes);
    let best = 0;
    for (let round = 0; round < rounds; round += 1) {
      best = Math.max(best, await measure(file, places, workload));
    }
    results.push(best);
    await file.close();
  }
  return results;
}

if (addon === undefined) throw new Error('the addon is not built');
const filename = path.resolve(process.argv[2] ?? 'build/raw-ring.bench');
const fileBytes = Number(process.argv[3] ?? 256) * (1 << 20);
const engines: readonly EngineName[] = ['auto', 'io_uring', 'threads'];
const columns: number[][] = [];
for (const engine of engines) columns.push(await run(filename, fileBytes, engine));
fs.rmSync(filename);

console.log(`| 4 KiB, random, k/s | depth | ${engines.join(' | ')} |`);
console.log(`| --- | ---: |${' ---: |'.repeat(engines.length)}`);
workloads.forEach(({ name, depth }, row) => {
  const cells = columns.map((column) => (column[row] / 1000).toFixed(0));
  console.log(`| ${name} | ${depth} | ${cells.join(' | ')} |`);
});
