/** Long work on a whole file, while its device fails: making an image, and repairing one. */
import { createQcow2 } from '../../src/format/qcow2/change/create.js';
import { CowherdError } from '../../src/errors.js';
import { decideCreateOptions } from '../../src/format/qcow2/change/create-options.js';
import { openImageOn } from '../../src/image/graph/open.js';
import { FaultFile, FaultPlan, operationKinds } from '../../src/storage/filters/fault.js';
import type { OperationKind } from '../../src/storage/filters/filter-file.js';
import { TraceFile } from '../../src/storage/filters/trace.js';
import { type MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../src/storage/storage.js';
import { bytesOf, contentOf } from '../crash/open-over.js';
import { realCheck } from '../crash/real-tools.js';
import { makeStart } from '../crash/recording.js';
import { workloadNamed } from '../crash/workloads.js';
import type { FaultKind } from './fault-kinds.js';
import type { SweepOptions } from './sweep.js';
import { type SweepResult, type Tally, addTally, newTally, tallyOf } from './tally.js';
import { noUnhandled, within } from './watch.js';

/** Work on one file, that may be done again after it has failed. */
export interface Chore {
  readonly name: string;
  /** What the file holds at first. */
  readonly start: (seed: number) => Promise<Uint8Array>;
  /** Does it. @returns false if it tells that it has failed in another way than by an error */
  readonly run: (file: StorageFile) => Promise<boolean>;
}

async function create(file: StorageFile, preallocation: 'metadata' | 'full'): Promise<boolean> {
  try {
    await file.truncate(0);
    const decided = decideCreateOptions({ clusterSize: 512, preallocation }, 1 << 20);
    await createQcow2(file, undefined, decided, undefined);
  } finally {
    await file.close();
  }
  return true;
}

async function repair(file: StorageFile): Promise<boolean> {
  try {
    const image = await openImageOn(file, { forCheck: true });
    const { failure, checkErrors, corruptions } = await image.check({ repair: 'all' });
    return failure === undefined && checkErrors + corruptions === 0;
  } finally {
    await file.close();
  }
}

/** An image of which some clusters are not counted, and some are that nothing uses. */
async function damaged(seed: number): Promise<Uint8Array> {
  const { content } = await makeStart(workloadNamed('write-zeroes'), seed);
  const bytes = content.slice();
  const view = new DataView(bytes.buffer);
  const table = Number(view.getBigUint64(48));
  const block = Number(view.getBigUint64(table));
  for (const cluster of [5, 6, 8]) view.setUint16(block + 2 * cluster, 0);
  for (const cluster of [40, 41, 90]) view.setUint16(block + 2 * cluster, 1);
  return bytes;
}

/** Every chore. */
export const chores: readonly Chore[] = [
  {
    name: 'creation with preallocated metadata',
    start: () => Promise.resolve(new Uint8Array()),
    run: (file) => create(file, 'metadata'),
  },
  {
    name: 'creation with preallocated data',
    start: () => Promise.resolve(new Uint8Array()),
    run: (file) => create(file, 'full'),
  },
  { name: 'repair of reference counts', start: damaged, run: repair },
];

/** Sweeps a chore. */
export async function sweepChore(chore: Chore, options: SweepOptions): Promise<SweepResult> {
  const { seed, siteEvery = 1, faults, realEvery } = options;
  const start = await chore.start(seed);
  const operations: OperationKind[] = [];
  const traced = new TraceFile(new MemoryFile('disk', { content: contentOf(start) }), ({ kind }) =>
    operations.push(kind),
  );
  const all = newTally();
  const byOperation = new Map<string, Tally>();
  const byFault = new Map<string, Tally>();
  if (!(await chore.run(traced))) all.failures.push('without a fault: it fails');
  const sites = new Map<string, number>();
  for (const kind of operations) sites.set(kind, (sites.get(kind) ?? 0) + 1);
  let runs = 0;
  for (const [index, kind] of operations.entries()) {
    const site = index + 1;
    const { site: only = site } = options;
    const isDue = options.site !== undefined || site % siteEvery === seed % siteEvery;
    if (site !== only || !isDue) continue;
    for (const fault of faults) {
      if (fault.kinds?.includes(kind) === false) continue;
      runs++;
      const isReal = realEvery > 0 && runs % realEvery === 0;
      const outcome = await runSite(chore, start, site, fault, isReal);
      const tally: Tally = {
        ...newTally(),
        runs: 1,
        failedRequests: outcome.failed ? 1 : 0,
        byRealTool: isReal ? 1 : 0,
        failures: outcome.problems.map((each) => `site ${site} (${kind}), ${fault.name}: ${each}`),
      };
      addTally(all, tally);
      addTally(tallyOf(byOperation, kind), tally);
      addTally(tallyOf(byFault, fault.name), tally);
    }
  }
  return { sites, all, byOperation, byFault };
}

async function runSite(
  chore: Chore,
  start: Uint8Array,
  site: number,
  fault: FaultKind,
  isReal: boolean,
): Promise<{ readonly failed: boolean; readonly problems: readonly string[] }> {
  const problems: string[] = [];
  const content = contentOf(start);
  const errors = new Set<unknown>();
  const plan = new FaultPlan({
    kinds: operationKinds,
    ...fault.options,
    nth: site,
    onFault: (_, error) => errors.add(error),
  });
  const { result: failed, unhandled } = await noUnhandled(async () => {
    const file = new FaultFile(new MemoryFile('disk', { content }), plan);
    const end = await within(chore.name, chore.run(file));
    if (end.status === 'rejected') problems.push(...objectionsTo(end.reason, errors));
    return end.status === 'rejected' || !end.value;
  });
  for (const reason of unhandled) problems.push(`unhandled: ${String(reason)}`);
  const isDelay = fault.options.effect === 'delay';
  if (failed && isDelay) problems.push('a delay makes it fail');
  if (!failed && !isDelay && errors.size > 0) problems.push('it does not tell of the fault');
  problems.push(...(await judgeAgain(chore, content, isReal)));
  return { failed, problems };
}

/** Does it again, without a fault, and judges the image. */
async function judgeAgain(
  chore: Chore,
  content: MemoryContent,
  isReal: boolean,
): Promise<readonly string[]> {
  const problems: string[] = [];
  const again = await within('again', chore.run(new MemoryFile('disk', { content })));
  if (again.status === 'rejected') return [`again: ${String(again.reason)}`];
  if (!again.value) problems.push('fails again');
  const image = await openImageOn(new MemoryFile('disk', { content }), { forCheck: true });
  const { corruptions, leaks, checkErrors } = await image.check();
  await image.close();
  if (corruptions + leaks + checkErrors > 0) {
    problems.push(`${corruptions} corruptions, ${leaks} leaks, ${checkErrors} errors`);
  }
  if (isReal) {
    const bytes = { image: bytesOf(content), data: undefined, backing: undefined };
    const { objection } = await realCheck(bytes, false);
    if (objection !== undefined) problems.push(objection);
  }
  return problems;
}

function objectionsTo(error: unknown, injected: ReadonlySet<unknown>): string[] {
  if (!(error instanceof CowherdError)) return [String(error)];
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if (injected.has(cause)) return [];
  }
  return [`it failed for another reason: ${error.message}`];
}
