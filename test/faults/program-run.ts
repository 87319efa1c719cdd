/** Sweeps the seams of programs on real files: runs each with one refusal, and judges what it left. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { CowherdError } from '../../src/errors.js';
import { type Program, copyFiles, expectKept, makeFiles } from './programs.js';
import { Chooser, type Seam } from './seams.js';
import { type SweepResult, type Tally, addTally, newTally, tallyOf } from './tally.js';
import { noUnhandled, within } from './watch.js';

/** How a sweep goes. */
export interface ProgramSweepOptions {
  /** Tries one site of so many; each by default. */
  readonly siteEvery?: number;
  readonly seed: number;
  /** Tries this site alone. */
  readonly site?: number;
}

/** Sweeps one program with one seam. */
export async function sweepProgram(
  program: Program,
  seam: Seam,
  { siteEvery = 1, seed, site: only }: ProgramSweepOptions,
): Promise<SweepResult> {
  const home = await mkdtemp(path.join(tmpdir(), 'cowherd-faults-'));
  const byOperation = new Map<string, Tally>();
  const all = newTally();
  try {
    await makeFiles(home);
    // The first run may make what lasts as long as the thread.
    await runOnce(program, seam, 0, home);
    const fine = await runOnce(program, seam, 0, home);
    for (const problem of fine.problems) all.failures.push(`without a fault: ${problem}`);
    if (fine.failed) all.failures.push('fails without a fault');
    const sites = new Map<string, number>();
    for (const name of fine.seen) sites.set(name, (sites.get(name) ?? 0) + 1);
    for (const [index, name] of fine.seen.entries()) {
      const site = index + 1;
      const chosen = only === undefined ? site % siteEvery === seed % siteEvery : site === only;
      if (!chosen || all.failures.length > mostFailures) continue;
      const outcome = await runOnce(program, seam, site, home);
      const tally = {
        ...newTally(),
        runs: 1,
        failedRequests: outcome.failed ? 1 : 0,
        missed: outcome.struck === undefined ? 1 : 0,
        failures: outcome.problems.map(
          (problem) => `site ${site} (${outcome.struck ?? name}), ${seam.name}: ${problem}`,
        ),
      };
      addTally(all, tally);
      addTally(tallyOf(byOperation, name), tally);
    }
    return { sites, all, byOperation, byFault: new Map([[seam.name, all]]) };
  } finally {
    await rm(home, { recursive: true });
  }
}

const mostFailures = 40;

interface Outcome {
  readonly seen: readonly string[];
  readonly struck: string | undefined;
  readonly failed: boolean;
  readonly problems: readonly string[];
}

async function runOnce(program: Program, seam: Seam, site: number, home: string): Promise<Outcome> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-fault-'));
  const problems: string[] = [];
  const chooser = new Chooser(site);
  let failed = false;
  try {
    await copyFiles(home, folder);
    const before = await openDescriptors();
    const { unhandled } = await noUnhandled(async () => {
      const close = seam.open(chooser);
      const end = await within(program.name, program.run(folder)).finally(close);
      failed = end.status === 'rejected';
      if (end.status === 'rejected') problems.push(...objectionsTo(end.reason));
    });
    for (const reason of unhandled) problems.push(`unhandled: ${String(reason)}`);
    const after = await settledDescriptors(before);
    if (after > before) problems.push(`${after - before} descriptors are left open`);
    if (site > 0) {
      await expectKept(folder);
      // Nothing may be locked any more, and nothing be missing.
      const again = await within(`${program.name}, again`, program.run(folder));
      if (again.status === 'rejected') problems.push(`again: ${String(again.reason)}`);
      await expectKept(folder);
    }
  } catch (error) {
    problems.push(String(error));
  } finally {
    await rm(folder, { recursive: true });
  }
  return { seen: chooser.seen, struck: chooser.struck, failed, problems };
}

/** An error must be one of ours and name the file. */
function objectionsTo(error: unknown): string[] {
  if (!(error instanceof CowherdError)) {
    return [error instanceof Error ? (error.stack ?? error.message) : String(error)];
  }
  const { filename, message } = error;
  if (filename === undefined || !message.includes(path.basename(filename))) {
    return [`the error names no file: ${message}`];
  }
  return [];
}

async function openDescriptors(): Promise<number> {
  return (await readdir('/proc/self/fd')).length;
}

/** How many descriptors are open once what is being closed is closed. */
async function settledDescriptors(wanted: number): Promise<number> {
  let open = await openDescriptors();
  for (let wait = 1; open > wanted && wait < 200; wait *= 2) {
    await pause(wait);
    open = await openDescriptors();
  }
  return open;
}
