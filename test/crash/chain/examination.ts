/** Cuts work on a chain of images off at many moments, and has each state judged. */
import { openImage } from '../../../src/image/graph/open.js';
import { CrashLog, CrashLogFile, LogClock } from '../../../src/storage/filters/crash-log.js';
import { Random } from '../../stress/random.js';
import { FileState } from '../file-state.js';
import { type Pending, pendingOf } from '../pending.js';
import { drawnSchedule } from '../recording.js';
import { visitStates } from '../states.js';
import type { MemoryFiles } from './memory-files.js';
import { type ChainWorkload, contentOfTop, makeChain } from './workloads.js';

/** How much is looked at. */
export interface ChainExaminationOptions {
  readonly seed: number;
  /** States that are judged, about so many. */
  readonly states: number;
  /** In every so many of them the work is done again. */
  readonly againEvery: number;
  /** Whether barriers count for nothing: to test the tester. */
  readonly withoutBarriers?: boolean;
}

/** What was found. */
export interface ChainOutcome {
  /** Changes and barriers that were recorded. */
  readonly ios: number;
  /** States that were made, the same ones included. */
  readonly enumerated: number;
  readonly judged: number;
  readonly failures: readonly string[];
}

const mostFailures = 3;

/** What one run did to the files that it wrote to. */
interface ChainRecording {
  readonly start: ReadonlyMap<string, Uint8Array>;
  readonly logs: ReadonlyMap<string, CrashLog>;
  readonly content: Uint8Array;
}

async function record(
  workload: ChainWorkload,
  files: MemoryFiles,
  seed: number,
): Promise<ChainRecording> {
  await makeChain(workload, files, seed);
  const start = files.bytes();
  const content = await contentOfTop(workload, files);
  const clock = new LogClock();
  const logs = new Map<string, CrashLog>();
  files.schedule = drawnSchedule(new Random(seed ^ 0x5bd1e995));
  files.wrap = (file, name) => {
    if (file.readOnly) return file;
    const log = logs.get(name) ?? new CrashLog(clock);
    logs.set(name, log);
    return new CrashLogFile(file, log);
  };
  await workload.run(files);
  files.place(files.bytes());
  await judge(workload, files, content, 'at the end');
  for (const name of logs.keys()) await expectNoLeaks(workload, files, name);
  await workload.expect?.(files, content);
  return { start, logs, content };
}

/** Examines a workload. */
export async function examineChain(
  workload: ChainWorkload,
  files: MemoryFiles,
  options: ChainExaminationOptions,
): Promise<ChainOutcome> {
  const { seed, states: wanted, againEvery, withoutBarriers = false } = options;
  const { start, logs, content } = await record(workload, files, seed);
  const random = new Random(seed ^ 0x2545f491);
  const names = [...logs.keys()];
  const states = names.map((name) => {
    const ends = logs.get(name)!.changes.map(({ offset, length }) => offset + length);
    return new FileState(start.get(name)!, Math.max(0, ...ends));
  });
  const changes = names.flatMap((name, index): Pending[] => {
    const log = logs.get(name)!;
    const barriers = withoutBarriers ? [] : log.barriers;
    return pendingOf({ initial: start.get(name)!, log }, index as 0 | 1, barriers);
  });
  const times = new Set([0, ...changes.map(({ submitted }) => submitted)]);
  for (const { barriers } of logs.values())
    for (const { completed } of barriers) times.add(completed);
  const found: Map<string, Uint8Array>[] = [];
  const seen = new Set<string>();
  const applied = new Set<Pending>();
  let enumerated = 0;
  for (const time of [...times].sort((one, other) => one - other)) {
    for (const change of changes.filter((each) => each.durable <= time && !applied.has(each))) {
      applied.add(change);
      states[change.file].apply(change);
    }
    const pending = changes.filter((each) => each.submitted <= time && each.durable > time);
    visitStates(pending, random, (pieces) => {
      enumerated += 1;
      for (const state of states) state.begin();
      for (const piece of pieces) states[piece.file].apply(piece);
      const key = states.flatMap(({ hashes }) => hashes).join();
      if (!seen.has(key)) {
        seen.add(key);
        // Each is as likely to be kept as any other.
        const at = found.length < wanted ? found.length : random.below(seen.size);
        if (at < wanted) {
          found[at] = new Map(start);
          for (const [index, name] of names.entries()) {
            found[at].set(name, states[index].bytes.slice(0, states[index].size));
          }
        }
      }
      for (const state of states) state.rollBack();
    });
  }
  const failures: string[] = [];
  for (const [number, state] of found.entries()) {
    const what = `${workload.name}, seed ${seed}, state ${number}`;
    try {
      files.place(state);
      await judge(workload, files, content, what);
      if (number % againEvery === 0) {
        await workload.run(files);
        await judge(workload, files, content, `${what}, done again`);
        await workload.expect?.(files, content);
      }
    } catch (error) {
      failures.push(`${what}: ${(error as Error).message}`);
    }
    if (failures.length >= mostFailures) break;
  }
  const recorded = [...logs.values()].map((log) => log.changes.length + log.barriers.length);
  const ios = recorded.reduce((sum, count) => sum + count, 0);
  return { ios, enumerated, judged: found.length, failures };
}

/** The uppermost image shows what it has shown, and no image is corrupt, unless it says that it was not closed. */
export async function judge(
  workload: ChainWorkload,
  files: MemoryFiles,
  content: Uint8Array,
  what: string,
): Promise<void> {
  const shown = await contentOfTop(workload, files);
  if (Buffer.compare(shown, content) !== 0) throw new Error(`${what}: the disk is another one`);
  for (const { name, format } of workload.images) {
    if (format === 'raw') continue;
    const { corruptions, checkErrors, dirty } = await checked(files, name);
    if (checkErrors > 0 || (corruptions > 0 && !dirty))
      throw new Error(`${what}: '${name}' is corrupt`);
  }
}

async function expectNoLeaks(
  { images }: ChainWorkload,
  files: MemoryFiles,
  name: string,
): Promise<void> {
  if (images.find((each) => each.name === name)?.format === 'raw') return;
  const { leaks } = await checked(files, name);
  if (leaks > 0) throw new Error(`${leaks} clusters of '${name}' are leaked`);
}

async function checked(
  files: MemoryFiles,
  name: string,
): Promise<{ corruptions: number; checkErrors: number; leaks: number; dirty: boolean }> {
  const path = files.nameOf(name);
  await using image = await openImage(path, { forCheck: true, readOnly: true, backing: 'ignore' });
  const { corruptions, checkErrors, leaks } = await image.check();
  const { dirtyFlag = false } = await image.info();
  return { corruptions, checkErrors, leaks, dirty: dirtyFlag };
}
