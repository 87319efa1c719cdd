/** Runs the same command line with the real qemu-img and with this program, and compares. */
import assert from 'node:assert/strict';
import { PassThrough, Writable } from 'node:stream';
import { runProgram } from '../../src/cli/program.js';
import { Session } from '../../src/cli/process/session.js';
import type { RunResult } from './tools.js';
import { run } from './tools.js';

// Dates are printed in local time, and `run` gives the real tools this zone.
process.env['TZ'] = 'UTC';

class Collector extends Writable {
  readonly #chunks: Buffer[] = [];

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#chunks.push(Buffer.from(chunk));
    done();
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }
}

/**
 * Runs this program within the test's process, in a folder. Not to be run twice at a time.
 *
 * @param program what it calls itself
 */
export async function runCowherd(
  words: readonly string[],
  folder: string,
  program?: string,
): Promise<RunResult> {
  const stdout = new Collector();
  const stderr = new Collector();
  const before = process.cwd();
  process.chdir(folder);
  try {
    const session = new Session(new PassThrough(), stdout, stderr, program);
    const code = await runProgram(words, session);
    return { stdout: stdout.text, stderr: stderr.text, code };
  } finally {
    process.chdir(before);
  }
}

/** Runs the real tool, and puts our name where it says its own. */
export async function runQemuImg(words: readonly string[], folder: string): Promise<RunResult> {
  const { stdout, stderr, code } = await run('qemu-img', words, { cwd: folder });
  // The one command of the other tool that is recommended here as well.
  const renamed = (text: string): string => text.replaceAll(/qemu-img(?! amend)/g, 'cowherd');
  return { stdout: renamed(stdout), stderr: renamed(stderr), code };
}

/** What is compared of two runs. */
export interface Compared {
  /** Whether the texts on standard error have to agree too; default true. */
  readonly stderr?: boolean;
}

/** Asserts that both programs do the same with a command line. */
export async function assertSame(
  words: readonly string[],
  folder: string,
  { stderr = true }: Compared = {},
): Promise<RunResult> {
  const expected = await runQemuImg(words, folder);
  const actual = await runCowherd(words, folder);
  const label = `cowherd ${words.join(' ')}`;
  const kept = (result: RunResult): Partial<RunResult> =>
    stderr ? result : { stdout: result.stdout, code: result.code };
  assert.deepEqual(kept(actual), kept(expected), label);
  return actual;
}
