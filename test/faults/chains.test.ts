/** Commits and rebases whose device fails say so, leave the disk that was there, and can be done again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CowherdError } from '../../src/errors.js';
import { FaultFile, FaultPlan, operationKinds } from '../../src/storage/filters/fault.js';
import type { OperationKind } from '../../src/storage/filters/filter-file.js';
import { TraceFile } from '../../src/storage/filters/trace.js';
import { judge } from '../crash/chain/examination.js';
import { MemoryFiles } from '../crash/chain/memory-files.js';
import {
  type ChainWorkload,
  chainWorkloads,
  contentOfTop,
  makeChain,
} from '../crash/chain/workloads.js';
import { type FaultKind, faultKinds } from './fault-kinds.js';
import { noUnhandled, within } from './watch.js';

const files = new MemoryFiles();
const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 2 ** 30);
const siteEvery = Number(process.env['COWHERD_FAULT_SITES'] ?? 9);

/** What is worth a try, and no error if it fails. */
const optional: readonly OperationKind[] = ['discard', 'allocate', 'status'];

for (const workload of chainWorkloads) {
  test(workload.name, async (t) => {
    t.diagnostic(`seed ${seed}`);
    await makeChain(workload, files, seed);
    const start = files.bytes();
    const content = await contentOfTop(workload, files);
    const operations: OperationKind[] = [];
    files.wrap = (file) => new TraceFile(file, ({ kind }) => operations.push(kind));
    await workload.run(files);
    let runs = 0;
    for (const [index, kind] of operations.entries()) {
      if (index % siteEvery !== seed % siteEvery) continue;
      for (const fault of faultKinds) {
        if (fault.kinds?.includes(kind) === false) continue;
        runs += 1;
        files.place(start);
        const what = `operation ${index + 1} (${kind}), ${fault.name}`;
        await runWith(workload, fault, index + 1, what);
        files.place(files.bytes());
        await judge(workload, files, content, what);
        await workload.run(files);
        await judge(workload, files, content, `${what}, done again`);
        await workload.expect?.(files, content);
      }
    }
    t.diagnostic(`${operations.length} operations, ${runs} runs`);
    assert.ok(runs > 20);
  });
}

async function runWith(
  workload: ChainWorkload,
  { name, options }: FaultKind,
  nth: number,
  what: string,
): Promise<void> {
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
  assert.deepEqual(unhandled, [], what);
  if (result.status === 'fulfilled') {
    // Where there is no room, other room is looked for.
    const isTried = ['delay', 'ENOSPC once'].includes(name);
    const isNoError = isTried || struck.every((kind) => optional.includes(kind));
    assert.ok(isNoError, `${what}: nothing is told of it`);
    return;
  }
  assert.ok(name !== 'delay', `${what}: ${String(result.reason)}`);
  assert.ok(isOf(result.reason, injected), `${what}: ${String(result.reason)}`);
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
