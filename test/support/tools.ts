/** Finds and runs the real tools that tests compare with, and makes folders that clean up. */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

/** The folder of package.json. Compiled tests run from `dist/test/support`. */
export const projectFolder = path.resolve(
  path.dirname(fileURLToPath(import.meta.url)),
  '..',
  '..',
  '..',
);

/** The program as the package ships it, a script for Node. */
export const cowherdProgram = path.join(projectFolder, 'dist', 'bundle', 'main.cjs');

/** What a finished program left behind. */
export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
  /** Exit code, or 128 + n after signal n as a shell has it (only SIGINT, SIGKILL, SIGTERM). */
  readonly code: number;
}

/** How `run` starts a program. */
export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Bytes for its standard input, which is empty otherwise. */
  readonly input?: Uint8Array | string;
  /** Kills the program after this time; default 120 000. */
  readonly timeoutMs?: number;
}

const signalNumbers: Readonly<Record<string, number>> = { SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };

/** Runs a program to its end, collecting its output; rejects only if it cannot be started. */
export async function run(
  command: string,
  commandArguments: readonly string[] = [],
  options: RunOptions = {},
): Promise<RunResult> {
  const { stdout, stderr, code } = await runBytes(command, commandArguments, options);
  return { stdout: stdout.toString('utf8'), stderr, code };
}

/** As `run`, with standard output as bytes. */
export function runBytes(
  command: string,
  commandArguments: readonly string[] = [],
  options: RunOptions = {},
): Promise<{ stdout: Buffer; stderr: string; code: number }> {
  return new Promise((resolve, reject) => {
    const child = spawn(findTool(command) ?? command, commandArguments, {
      // Tools put the name they were called by in front of messages.
      argv0: command,
      cwd: options.cwd,
      env: { ...environmentOf(command), LC_ALL: 'C', TZ: 'UTC', ...options.env },
      timeout: options.timeoutMs ?? 120_000,
      killSignal: 'SIGKILL',
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    // A program that does not read its input to the end is not an error of the test.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.input ?? '');
    child.on('error', reject);
    child.on('close', (code, signal) => {
      resolve({
        stdout: Buffer.concat(stdout),
        stderr: Buffer.concat(stderr).toString('utf8'),
        code: code ?? 128 + (signalNumbers[signal ?? ''] ?? 0),
      });
    });
  });
}

/** The words by which a shell starts this Node, with the sanitizer that is loaded here if there is one. */
export const nodeForShells =
  (process.env['LD_PRELOAD'] === undefined
    ? ''
    : `env LD_PRELOAD='${process.env['LD_PRELOAD']}' `) + `'${process.execPath}'`;

/** The words by which a shell starts the program. */
export const cowherdForShells = `${nodeForShells} '${cowherdProgram}'`;

/** Marks a test skipped where the addon is built with a sanitizer. @returns whether it is */
export function skipsSanitizer(t: TestContext, why: string): boolean {
  const sanitizer = process.env['COWHERD_SANITIZER'] ?? '';
  if (sanitizer !== '') t.skip(`the ${sanitizer} sanitizer is built in: ${why}`);
  return sanitizer !== '';
}

/**
 * The environment to start a program with. A sanitizer that is loaded into this process is for Node
 * alone; other tools bring their own threads.
 */
export function environmentOf(command: string): NodeJS.ProcessEnv {
  if (command === process.execPath) return process.env;
  return { ...process.env, LD_PRELOAD: undefined };
}

/** Runs a program that has to succeed and returns its standard output. */
export async function runOk(
  command: string,
  commandArguments: readonly string[] = [],
  options: RunOptions = {},
): Promise<string> {
  const result = await run(command, commandArguments, options);
  if (result.code !== 0) {
    throw new Error(
      `${command} ${commandArguments.join(' ')} exited with ${result.code}: ${result.stderr}`,
    );
  }
  return result.stdout;
}

const found = new Map<string, string | undefined>();

/** The path of a program, or undefined; also looks where distributions keep system tools. */
export function findTool(name: string): string | undefined {
  if (name.includes('/')) return name;
  if (!found.has(name)) {
    const folders = [...(process.env['PATH'] ?? '').split(path.delimiter), '/usr/sbin', '/sbin'];
    found.set(
      name,
      folders.map((folder) => path.join(folder, name)).find((file) => isExecutable(file)),
    );
  }
  return found.get(name);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether the tools are there; if one is not, the test is marked skipped with the reason and the
 * caller returns. Where CI is set a missing tool is an error, so that nothing is skipped unseen.
 */
export function needsTool(t: TestContext, ...names: readonly string[]): boolean {
  const missing = names.filter((name) => findTool(name) === undefined);
  if (missing.length === 0) return true;
  const message = `needs ${missing.join(', ')}, which scripts/setup-peers.sh installs`;
  if (process.env['CI']) throw new Error(message);
  t.skip(message);
  return false;
}

/** A new folder that is removed when the test ends. */
export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-test-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
