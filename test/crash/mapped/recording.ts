/** Runs a workload of an image of a mapping once, over a file in memory, and keeps what was done. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { OpenImageOptions } from '../../../src/image/api/options.js';
import type { RequestTarget } from '../../../src/image/api/image.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImageOn } from '../../../src/image/graph/open.js';
import { CrashLog, CrashLogFile, LogClock } from '../../../src/storage/filters/crash-log.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../../src/storage/storage.js';
import { backingMark, fillSectors, sectorSize } from '../../schedules/history.js';
import { Random } from '../../stress/random.js';
import { contentOf } from '../open-over.js';
import { Promises } from '../promises.js';
import { type RecordedFile, RecordedDisk, UncertainFile, drawnSchedule } from '../recording.js';
import { type MappedWorkload, useDisk } from './workloads.js';

const queueCount = 2;

/** What a run did. */
export interface MappedRecording {
  readonly workload: MappedWorkload;
  readonly seed: number;
  readonly file: RecordedFile;
  readonly promises: Promises;
  /** Name of the image; its backing file lies beside it. */
  readonly filename: string;
}

/** Changes of the machinery, for tests of the tester. */
export interface MappedSabotage {
  /** Stands between the library and the log. */
  readonly wrap?: (file: StorageFile) => StorageFile;
}

/** Runs work in a folder with a new image, and the backing file if it has one. */
export async function withImage<Result>(
  { format, image, sectors, backedSectors = 0 }: MappedWorkload,
  work: (filename: string) => Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-crash-'));
  try {
    const below = { backingFile: 'base.raw', backingFormat: 'raw' };
    if (backedSectors > 0) {
      const content = fillSectors(backingMark, 0, backedSectors);
      await writeFile(path.join(folder, below.backingFile), content);
    }
    const filename = path.join(folder, 'disk');
    const options = { ...image, ...(backedSectors > 0 && below), format };
    await createImage(filename, { ...options, size: sectors * sectorSize });
    return await work(filename);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** How images of a workload are opened. */
export function optionsOf({ format }: MappedWorkload): OpenImageOptions {
  return { format };
}

/** Runs a workload on a new image and records it. */
export async function recordMapped(
  workload: MappedWorkload,
  seed: number,
  filename: string,
  { wrap = (file) => file }: MappedSabotage = {},
): Promise<MappedRecording> {
  const { sectors, backedSectors = 0, blockBytes, zeroInit = true } = workload;
  const initial = await readFile(filename);
  const clock = new LogClock();
  const log = new CrashLog(clock);
  const random = new Random(seed);
  const schedule = drawnSchedule(new Random(seed ^ 0x5bd1e995));
  const inner = new MemoryFile(filename, { content: contentOf(initial), schedule });
  const file = zeroInit ? new CrashLogFile(inner, log) : new UncertainFile(inner, log);
  const marks = new Uint32Array(sectors).fill(backingMark, 0, backedSectors);
  const promises = new Promises(clock, marks, backingMark);
  const image = await openImageOn(wrap(file), optionsOf(workload));
  const queues: RequestTarget[] = [image];
  while (queues.length < queueCount) queues.push(await image.openQueue());
  await useDisk(new RecordedDisk(queues, promises, clock, random, blockBytes / sectorSize));
  const begun = clock.tick();
  await image.close();
  promises.noteFlush(begun);
  return { workload, seed, file: { initial, log }, promises, filename };
}
