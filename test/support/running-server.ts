/** `cowherd serve`, or another command that serves, in a process of its own, which a test may kill. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { cowherdProgram } from './tools.js';

/** A server that runs in a process of its own. */
export interface Running {
  readonly child: ChildProcess;
  /** Resolves with the exit code, or the signal it died of. */
  readonly ended: Promise<number | string>;
  readonly lines: string[];
  readonly stderr: () => string;
}

/** Starts a command in a folder; resolves when it says that it serves. */
export async function startServer(
  t: TestContext,
  folder: string,
  words: readonly string[],
  command: 'serve' | 'mount' = 'serve',
): Promise<Running> {
  const child = spawn(process.execPath, [cowherdProgram, command, ...words], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  let stdout = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string);
  t.after(() => child.kill('SIGKILL'));
  await Promise.race([
    new Promise<void>((resolve) => {
      child.stdout.on('data', (chunk: Buffer) => {
        stdout += chunk.toString();
        if (stdout.includes('\n')) resolve();
      });
    }),
    ended.then((code) => {
      throw new Error(`the server ended with ${code}: ${stderr}`);
    }),
  ]);
  return { child, ended, lines: stdout.trimEnd().split('\n'), stderr: () => stderr };
}
