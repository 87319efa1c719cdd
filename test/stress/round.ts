/** One round of the stress run: threads work on one image, and the real tools judge what is left. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Image } from '../../src/image/api/image.js';
import type { QueueStats } from '../../src/image/api/stats.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { fragmentedSpace } from '../support/fragmented-space.js';
import { run, runOk } from '../support/tools.js';
import { judge, sectorBytes, stamp } from './history.js';
import { Random } from './random.js';
import type { Scenario } from './scenario.js';
import type { Orders, Report } from './worker.js';

/** What happened in a round. */
export interface RoundResult {
  readonly operations: number;
  readonly stats: QueueStats;
}

/** Stamps of content that was there before the threads began. */
const firstStamp = 0xe0000000;

/** Of the disk, what has content at first; the L2 tables of the rest are made by the threads. */
const filledShare = 3 / 4;
const clustersPerWrite = 16;

/** A thread that takes longer than this stands still; the slowest rounds take a tenth of it. */
const standstillMs = 180_000;

/**
 * Runs a round in an empty folder.
 * @throws AssertionError saying what is wrong; the image is left in the folder
 */
export async function runRound(scenario: Scenario, folder: string): Promise<RoundResult> {
  const progress = { stage: 'preparing the image' };
  let watchdog: NodeJS.Timeout | undefined;
  const standstill = new Promise<never>((_, reject) => {
    watchdog = setTimeout(() => {
      const fact = `seed ${scenario.seed}: ${progress.stage} takes too long; tasks: ${tasks()}`;
      reject(new Error(fact));
    }, 2 * standstillMs);
  });
  try {
    return await Promise.race([workAndJudge(scenario, folder, progress), standstill]);
  } finally {
    clearTimeout(watchdog);
  }
}

async function workAndJudge(
  scenario: Scenario,
  folder: string,
  progress: { stage: string },
): Promise<RoundResult> {
  const place = path.join(folder, 'image.qcow2');
  const initial = await prepare(scenario, folder, place);
  const image = await openImage(place, { format: 'qcow2', cacheSize: scenario.cacheSize });
  const clock = new Int32Array(new SharedArrayBuffer(8));
  const handle = image.handle();
  const work = Array.from({ length: scenario.threads }, (_, thread) =>
    runThread({ handle, scenario, thread, clock }),
  );
  progress.stage = 'the work of the threads';
  // Whether the thread that opened the image leaves first or last must make no difference.
  const leavesFirst = scenario.seed % 3 === 0;
  const reports = Promise.all(work);
  if (leavesFirst) {
    // One that has failed will never join; it says so itself.
    await Promise.race([allJoined(clock, scenario.threads), reports]);
    progress.stage = 'closing the image before the threads do';
    await image.close();
    progress.stage = 'the work of the threads';
  }
  const done = await reports;
  const { total } = image.stats();
  progress.stage = 'closing the image';
  if (!leavesFirst) await image.close();
  assert.deepEqual(
    done.flatMap(({ wrong }) => wrong),
    [],
  );
  const logs = done.map(({ entries }) => entries);
  progress.stage = 'qemu-img';
  const check = await run('qemu-img', ['check', '-f', 'qcow2', place]);
  assert.equal(check.code, 0, `qemu-img check: ${check.stdout.slice(0, 2000)}${check.stderr}`);
  const raw = path.join(folder, 'final.raw');
  await runOk('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', place, raw]);
  assert.deepEqual(judge(wordsOf(await readFile(raw)), initial, logs), []);
  progress.stage = 'reading the image';
  const again = await openImage(place, { format: 'qcow2', readOnly: true });
  const content = new Uint8Array(scenario.size);
  await again.read(content, 0);
  await again.close();
  assert.deepEqual(judge(wordsOf(content), initial, logs), [], 'read by this engine');
  const operations = done.reduce((sum, report) => sum + report.operations, 0);
  return { operations, stats: total };
}

function wordsOf(bytes: Uint8Array): Uint32Array {
  const whole = bytes.slice();
  return new Uint32Array(whole.buffer);
}

/** Waits until every thread has opened the image. */
async function allJoined(clock: Int32Array, threads: number): Promise<void> {
  for (let waits = 0; Atomics.load(clock, 1) < threads && waits < 60_000; waits++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

function runThread(orders: Orders): Promise<Report> {
  const { thread, scenario } = orders;
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('worker.js', import.meta.url), { workerData: orders });
    let report: Report | undefined;
    let description = 'does not answer';
    worker.on('message', (message: Report | string) => {
      if (typeof message === 'string') description = message;
      else report = message;
    });
    const watchdog = setTimeout(() => {
      worker.postMessage('describe');
      setTimeout(() => {
        const state = report === undefined ? description : 'has reported, but does not end';
        reject(new Error(`seed ${scenario.seed}: thread ${thread} ${state}; tasks: ${tasks()}`));
        void worker.terminate();
      }, 5000);
    }, standstillMs);
    worker.on('error', reject);
    worker.on('exit', (code) => {
      clearTimeout(watchdog);
      if (report !== undefined && code === 0) resolve(report);
      else reject(new Error(`thread ${thread} ended with code ${code}`));
    });
  });
}

/** What every thread of this process waits for, as the kernel tells it. */
function tasks(): string {
  const told = readdirSync('/proc/self/task').map((task) => {
    const read = (name: string): string => {
      try {
        return readFileSync(`/proc/self/task/${task}/${name}`, 'utf8').trim().split(' ')[0];
      } catch {
        return '?';
      }
    };
    return `${read('comm')} in ${read('wchan')} (system call ${read('syscall')})`;
  });
  return told.join(', ');
}

/** Makes the image, with some content of every kind. @returns the stamp of every sector */
async function prepare(scenario: Scenario, folder: string, place: string): Promise<Uint32Array> {
  const { options, size, backing, snapshot, seed } = scenario;
  const random = new Random(seed ^ 0x5eed);
  const sectors = size / sectorBytes;
  const initial = new Uint32Array(sectors);
  let below: string | undefined;
  if (backing !== 'none') {
    const bytes = new Uint8Array(size);
    for (let sector = 0; sector < sectors; sector++) {
      if (sector % 64 < 24) continue;
      initial[sector] = firstStamp + sector;
      stamp(bytes.subarray(sector * sectorBytes, (sector + 1) * sectorBytes), initial[sector]);
    }
    below = path.join(folder, `below.${backing}`);
    const raw = path.join(folder, 'below.raw');
    await writeFile(raw, bytes);
    if (backing === 'qcow2') {
      await runOk('qemu-img', ['convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, below]);
    }
  }
  await createImage(place, {
    ...options,
    format: 'qcow2',
    size,
    ...(options.dataFile !== undefined && { dataFile: path.join(folder, options.dataFile) }),
    ...(below !== undefined && { backingFile: below, backingFormat: backing }),
  });
  const first = await openImage(place, { format: 'qcow2', cache: 'unsafe' });
  const clusters = Math.ceil((size / first.clusterSize!) * filledShare);
  await writeFirstContent(first, scenario, initial, random, clusters);
  await first.close();
  if (snapshot) await runOk('qemu-img', ['snapshot', '-c', 'first', place]);
  const since = await openImage(place, { format: 'qcow2', cache: 'unsafe' });
  await fragment(since, scenario, initial, clusters);
  await makeTables(since, initial);
  await since.close();
  return initial;
}

/** Writes clusters that no snapshot holds, and gives back some of them, one here and one there. */
async function fragment(
  image: Image,
  { apart }: Scenario,
  initial: Uint32Array,
  filled: number,
): Promise<void> {
  const clusterSize = image.clusterSize!;
  const perCluster = clusterSize / sectorBytes;
  const { written, given } = fragmentedSpace({ clusterSize, filled, apart, tables: 0 });
  for (let index = 0; index < written.length; index += clustersPerWrite) {
    const clusters = written.slice(index, index + clustersPerWrite);
    const start = clusters[0] * perCluster;
    const count = clusters.length * perCluster;
    const value = firstStamp + 0x2000000 + start;
    const buffer = new Uint8Array(count * sectorBytes);
    stamp(buffer, value);
    await image.write(buffer, start * sectorBytes);
    initial.fill(value, start, start + count);
  }
  await Promise.all(
    given.map((cluster) => image.writeZeroes(cluster * clusterSize, clusterSize, { unmap: true })),
  );
  for (const cluster of given) {
    initial.fill(0, cluster * perCluster, (cluster + 1) * perCluster);
  }
}

/** Writes a sector for each L2 table, so that there are all of them to be cached. */
async function makeTables(image: Image, initial: Uint32Array): Promise<void> {
  const sectorsOfTable = (image.clusterSize! / 16) * (image.clusterSize! / sectorBytes);
  const buffer = new Uint8Array(sectorBytes);
  for (let sector = sectorsOfTable - 1; sector < initial.length; sector += sectorsOfTable) {
    initial[sector] = firstStamp + 0x3000000 + sector;
    stamp(buffer, initial[sector]);
    await image.write(buffer, sector * sectorBytes);
  }
}

async function writeFirstContent(
  image: Image,
  scenario: Scenario,
  initial: Uint32Array,
  random: Random,
  clusters: number,
): Promise<void> {
  const clusterSize = image.clusterSize!;
  const clusterSectors = clusterSize / sectorBytes;
  const end = Math.min(initial.length, clusters * clusterSectors);
  for (let start = 0; start < end; start += clusterSectors) {
    if (!random.chance(0.3)) continue;
    const count = Math.min(clusterSectors, end - start);
    const value = firstStamp + 0x1000000 + start;
    const buffer = new Uint8Array(count * sectorBytes);
    stamp(buffer, value);
    if (scenario.options.dataFile === undefined && random.chance(0.5)) {
      await image.writeCompressed(buffer, start * sectorBytes);
    } else {
      await image.write(buffer, start * sectorBytes);
    }
    initial.fill(value, start, start + count);
  }
}
