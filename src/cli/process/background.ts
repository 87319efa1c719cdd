/** Going on in the background: another process does the work, and this one ends once it says that it is ready. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { replaceDescriptor } from '../../native/descriptor.js';
import type { Session } from './session.js';

/** Says to the process in the background what it is. */
const variable = 'COWHERD_IN_BACKGROUND';
/** Milliseconds in which the end of a process is heard of whose output has ended. */
const endMs = 100;

/** Whether this process was started to be in the background. */
export const isBackground = process.env[variable] === '1';

/**
 * Starts this program once more with the words of its command, passes on what it prints, and resolves when it
 * has left the foreground, or has ended before that.
 *
 * @returns the exit code
 */
export async function runInBackground(
  words: readonly string[],
  { stdout, signal }: Session,
): Promise<number> {
  const [runtime, script, command] = process.argv;
  const child = spawn(runtime, [...process.execArgv, script, command, ...words], {
    detached: true,
    env: { ...process.env, [variable]: '1' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const stop = (): void => {
    child.kill('SIGTERM');
  };
  signal.addEventListener('abort', stop);
  const end: { code?: number } = {};
  child.once('exit', (code) => {
    end.code = code ?? 1;
  });
  child.stdout.on('data', (chunk: Buffer) => stdout.write(chunk));
  await once(child.stdout, 'end');
  await setTimeout(endMs);
  signal.removeEventListener('abort', stop);
  child.unref();
  return end.code ?? 0;
}

/** Leaves the terminal, or whatever standard output and errors went to, to others. */
export function leaveForeground(): void {
  const nowhere = openSync('/dev/null', 'r+');
  for (const descriptor of [1, 2]) replaceDescriptor(descriptor, nowhere);
  closeSync(nowhere);
}
