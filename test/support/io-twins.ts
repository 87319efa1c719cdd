/** Runs commands on an image by the real qemu-io and by this program, each on a copy of its own. */
import assert from 'node:assert/strict';
import { symlink } from 'node:fs/promises';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { runCowherd } from './both-tools.js';
import { type RunResult, cowherdProgram, run, runOk } from './tools.js';
import { type Twins, makeTwins } from './twins.js';

/** Two folders with the same images. */
export interface IoTwins extends Twins {
  /** The name `qemu-io` by which the program is called. */
  readonly link: string;
}

/** Makes the same images twice. */
export async function ioTwins(
  t: TestContext,
  make: (folder: string) => Promise<void>,
): Promise<IoTwins> {
  const made = await makeTwins(t, make);
  const link = path.join(path.dirname(made.mine), 'qemu-io');
  await symlink(cowherdProgram, link);
  return { ...made, link };
}

/** Figures without how long a request took, which differs each time. */
function withoutTimes(text: string): string {
  return text
    .replaceAll(/\d[\d:]*\.\d\d(?: sec)? \(.* ops\/sec\)$/gm, 'TIME')
    .replaceAll(/^(\d+,\d+),\d+:\d\d:\d\d\.\d\d,[\d.]+,[\d.]+$/gm, '$1,TIME');
}

function comparable({ stdout, stderr, code }: RunResult): RunResult {
  return { stdout: withoutTimes(stdout), stderr, code };
}

/** Runs the same commands on both. What is said has to be the same. @returns what the real tool did */
export async function bothRun(
  { mine, theirs }: Twins,
  lines: readonly string[],
  words: readonly string[],
): Promise<RunResult> {
  const given = [...lines.flatMap((line) => ['-c', line]), ...words];
  const { stdout, stderr, code } = await run('qemu-io', given, { cwd: theirs });
  const named = stderr.replaceAll(/^qemu-io:/gm, 'cowherd:');
  const expected = comparable({ stdout, stderr: named, code });
  assert.deepEqual(comparable(await runCowherd(['io', ...given], mine)), expected, given.join(' '));
  return expected;
}

/** Runs the program as a process that is called by the name of the real tool, and the real tool. */
export async function bothCalled(
  { mine, theirs, link }: IoTwins,
  words: readonly string[],
  input = '',
): Promise<RunResult> {
  const expected = comparable(await run('qemu-io', words, { cwd: theirs, input }));
  const actual = comparable(await run(process.execPath, [link, ...words], { cwd: mine, input }));
  assert.deepEqual(actual, expected, `${words.join(' ')} ${input}`);
  return expected;
}

/** The real qemu-img has to find the images the same, and nothing wrong with ours. */
export async function assertAlike(
  { mine, theirs }: Twins,
  name: string,
  format: string,
  what: string,
): Promise<void> {
  const pair = [path.join(mine, name), path.join(theirs, name)];
  await runOk('qemu-img', ['compare', '-q', '-f', format, '-F', format, ...pair]).catch(
    (error: unknown) => assert.fail(`${what}: ${String(error)}`),
  );
  if (format === 'raw') return;
  const check = await run('qemu-img', ['check', '-q', '-f', format, pair[0]]);
  assert.deepEqual([check.code, check.stderr], [0, ''], what);
}
