/** Running the two programs that race, timed; and files for them to work on. */
import { type SpawnOptions, spawn } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const distFolder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const cli = path.join(distFolder, 'bundle', 'main.cjs');
const memoryProbe = pathToFileURL(path.join(distFolder, 'bench', 'memory-probe.js')).href;

/** What a finished program left behind. */
export interface Finished {
  readonly seconds: number;
  readonly stdout: string;
}

/** What a program took. */
export interface Taken {
  /** By the clock. */
  readonly seconds: number;
  /** Of the processors, in the program and in the kernel for it. */
  readonly processorSeconds: number;
}

/** Runs a program to its end. @throws if it does not exit with 0 */
export async function runProgram(
  command: string,
  parameters: readonly string[],
  options: SpawnOptions = {},
): Promise<Finished> {
  const start = performance.now();
  const child = spawn(command, parameters, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  let stdout = '';
  let stderr = '';
  child.stdout?.on(
    'data',
    (chunk: Buffer) => (stdout += chunk.length < 65536 ? chunk.toString() : ''),
  );
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  const seconds = (performance.now() - start) / 1000;
  if (code !== 0) throw new Error(`${command} ${parameters.join(' ')} failed: ${stderr}`);
  return { seconds, stdout };
}

/** Runs a program to its end, as the shell's `time` has it. @throws if it does not exit with 0 */
export async function take(command: string, ...parameters: readonly string[]): Promise<Taken> {
  const script = 'TIMEFORMAT="%R %U %S"; { time "$@" >&3 2>&3; } 3>&2 2>&1';
  const { stdout } = await runProgram('bash', ['-c', script, 'bash', command, ...parameters]);
  const [seconds, user, system] = stdout.trim().split(' ').map(Number);
  return { seconds, processorSeconds: user + system };
}

/** What the real tool takes. */
export function takeQemu(...parameters: readonly string[]): Promise<Taken> {
  return take('qemu-img', ...parameters);
}

/** What our command line takes, the start of Node included. */
export function takeCowherd(...parameters: readonly string[]): Promise<Taken> {
  return take(process.execPath, cli, ...parameters);
}

/** What Node takes to start and stop. */
export function takeNode(): Promise<Taken> {
  return take(process.execPath, '-e', '0');
}

/** Seconds that the real tool takes. */
export async function timeQemu(...parameters: readonly string[]): Promise<number> {
  return (await runProgram('qemu-img', parameters)).seconds;
}

/** Seconds that our command line takes, the start of Node included. */
export async function timeCowherd(...parameters: readonly string[]): Promise<number> {
  return (await runProgram(process.execPath, [cli, ...parameters])).seconds;
}

/** Requests a second that our `bench` counts. */
export async function benchCowherd(...parameters: readonly string[]): Promise<number> {
  const words = [cli, 'bench', '--output=json', ...parameters];
  const { stdout } = await runProgram(process.execPath, words);
  return (JSON.parse(stdout) as { 'requests-per-second': number })['requests-per-second'];
}

/**
 * Requests a second of `qemu-img bench` on a cached file with the better of its engines. One that
 * crashes, as io_uring does now and then at depth 1, leaves the word to the other.
 *
 * @param before makes the file ready for a run
 * @throws if both fail
 */
export async function benchQemu(
  before: () => Promise<void>,
  ...parameters: readonly string[]
): Promise<number> {
  const figures: number[] = [];
  const failures: unknown[] = [];
  for (const engine of ['io_uring', 'threads']) {
    await before();
    try {
      figures.push(await benchQemuWith(engine, parameters));
    } catch (error) {
      failures.push(error);
      console.error(`qemu-img bench -i ${engine}: ${String(error)}`);
    }
  }
  if (figures.length === 0) throw failures[0];
  return Math.max(...figures);
}

async function benchQemuWith(engine: string, parameters: readonly string[]): Promise<number> {
  const words = ['bench', '-t', 'writeback', '-i', engine, ...parameters];
  const { stdout } = await runProgram('qemu-img', words);
  return requestsIn(stdout);
}

/**
 * Requests a second of `qemu-img bench` on what a server has.
 *
 * @param uri of the server, which is asked by NBD
 */
export async function benchServed(uri: string, ...parameters: readonly string[]): Promise<number> {
  const { stdout } = await runProgram('qemu-img', ['bench', '-f', 'raw', ...parameters, uri]);
  return requestsIn(stdout);
}

function requestsIn(report: string): number {
  const count = Number(/^Sending (\d+)/.exec(report)?.[1]);
  return count / Number(/completed in ([\d.]+) seconds/.exec(report)?.[1]);
}

/** MB a second that OpenSSL has one core encrypt by AES-256-XTS, a sector at a time. */
export async function encryptedByOneCore(): Promise<number> {
  const words = ['-elapsed', '-seconds', '2', '-bytes', '512', '-evp', 'aes-256-xts'];
  const { stdout } = await runProgram('openssl', ['speed', ...words]);
  return Number(/^AES-256-XTS +([\d.]+)k/im.exec(stdout)?.[1]) / 1000;
}

/** Peak memory in MiB of our command line, or of a bare Node without parameters. */
export async function peakMemory(...parameters: readonly string[]): Promise<number> {
  const report = path.join(distFolder, `.memory-${process.pid}`);
  const program = parameters.length > 0 ? [cli, ...parameters] : ['-e', '0'];
  await runProgram(process.execPath, ['--import', memoryProbe, ...program], {
    env: { ...process.env, COWHERD_MEMORY_REPORT: report },
  });
  const kib = Number(await readFile(report, 'utf8'));
  await rm(report);
  return kib / 1024;
}

/** Makes sure that what was written before does not disturb what is timed next. */
export async function settle(): Promise<void> {
  await runProgram('sync', []);
}

/** Puts a file into the page cache the way reading it does, whoever wrote it and however. */
export async function warm(file: string): Promise<void> {
  await runProgram('sync', []);
  await runProgram('dd', [`of=${file}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0']);
  await runProgram('dd', [`if=${file}`, 'of=/dev/null', 'bs=1M']);
}
