/** Goes through the sites of work on a chain of images, with every way to fail at each, and counts. */
import assert from 'node:assert/strict';
import { CowherdError } from '../../src/errors.js';
import { FaultFile, FaultPlan, operationKinds } from '../../src/storage/filters/fault.js';
import type { OperationKind } from '../../src/storage/filters/filter-file.js';
import { TraceFile } from '../../src/storage/filters/trace.js';
import { judge } from '../crash/chain/examination.js';
import type { MemoryFiles } from '../crash/chain/memory-files.js';
import { type ChainWorkload, contentOfTop, makeChain } from '../crash/chain/workloads.js';
import type { FaultKind } from './fault-kinds.js';
import { type SweepOptions, emptyResult } from './sweep.js';
import { type SweepResult, addTally, newTally, tallyOf } from './tally.js';
import { noUnhandled, within } from './watch.js';

/** What is worth a try, and no error if it fails. */
const optional: readonly OperationKind[] = ['discard', 'allocate', 'status'];

/**
 * Sweeps a workload: what fails says so, leaves the disk that was there, and can be done again.
 *
 * @param files on which it is done
 */
export async function sweepChain(
  workload: ChainWorkload,
  files: MemoryFiles,
  options: Pick<SweepOptions, 'seed' | 'faults' | 'siteEvery' | 'site'>,
): Promise<SweepResult> {
  const { seed, siteEvery = 1, faults } = options;
  await makeChain(workload, files, seed);
  const start = files.bytes();
  const content = await contentOfTop(workload, files);
  const operations: OperationKind[] = [];
  files.wrap = (file) => new TraceFile(file, ({ kind }) => operations.push(kind));
  await workload.run(files);
  const result = emptyResult(operations);
  for (const [index, kind] of operations.entries()) {
    const site = index + 1;
    if (options.site !== undefined ? site !== options.site : site % siteEvery !== seed % siteEvery)
      continue;
    for (const fault of faults) {
      if (fault.kinds?.includes(kind) === false) continue;
      files.place(start);
      const what = `site ${site} (${kind}), ${fault.name}`;
      const tally = { ...newTally(), runs: 1 };
      try {
        if (await runWith(workload, files, fault, site)) tally.failedRequests = 1;
        files.place(files.bytes());
        await judge(workload, files, content, 'after it');
        await workload.run(files);
        await judge(workload, files, content, 'done again');
        await workload.expect?.(files, content);
      } catch (error) {
        tally.failures.push(`${what}: ${String(error)}`);
      }
      addTally(result.all, tally);
      addTally(tallyOf(result.byOperation, kind), tally);
      addTally(tallyOf(result.byFault, fault.name), tally);
    }
  }
  return result;
}

/** @returns whether the work has failed */
async function runWith(
  workload: ChainWorkload,
  files: MemoryFiles,
  { name, options }: FaultKind,
  nth: number,
): Promise<boolean> {
  const injected = new Set<unknown>();
  const struck: OperationKind[] = [];
  const plan = new FaultPlan({
    kinds: operationKinds,
    ...options,
    nth,
    onFault: ({ kind }, error) => {
      struck.push(kind);
      injected.add(error);
    },
  });
  files.wrap = (file) => new FaultFile(file, plan);
  const { result, unhandled } = await noUnhandled(() => within(workload.name, workload.run(files)));
  assert.deepEqual(unhandled, []);
  if (result.status === 'fulfilled') {
    // Where there is no room, other room is looked for.
    const isTried =
      ['delay', 'ENOSPC once'].includes(name) ||
      (workload.isDoneAgain === true && options.forever !== true);
    const isNoError = isTried || struck.every((kind) => optional.includes(kind));
    assert.ok(isNoError, 'nothing is told of it');
    return false;
  }
  assert.ok(name !== 'delay', String(result.reason));
  assert.ok(isOf(result.reason, injected), String(result.reason));
  return true;
}

/** Whether an error is one of those that were injected, or is told because of one. */
function isOf(error: unknown, injected: ReadonlySet<unknown>): boolean {
  if (injected.has(error)) return true;
  if (error instanceof Error && error.name === 'SuppressedError') {
    const { error: later, suppressed } = error as Error & Record<'error' | 'suppressed', unknown>;
    return isOf(later, injected) && isOf(suppressed, injected);
  }
  return error instanceof CowherdError && isOf(error.cause, injected);
}
