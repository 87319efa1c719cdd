/** NBD servers that race: ours and others, started for a run, with the processor time that they take. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const cli = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', 'bundle', 'main.cjs');
/** Clock ticks a second in /proc, on every Linux that there is. */
const ticks = 100;

/** A server that runs. */
export interface NbdServer {
  /** Seconds of the processors that it has taken so far. */
  processorSeconds(): Promise<number>;
  stop(): Promise<void>;
}

/** How a server is started. @param socket that it has to listen at */
export type StartServer = (socket: string) => Promise<NbdServer>;

/** `cowherd serve` of an image, on so many threads. */
export function cowherdServing(image: string, format: string, workers: number): StartServer {
  return (socket) =>
    start(socket, process.execPath, [
      ...[cli, 'serve', '-f', format, '--nbd', `unix:${socket}`],
      ...['--workers', String(workers), image],
    ]);
}

/** `qemu-nbd` of an image. */
export function qemuServing(image: string, format: string): StartServer {
  return (socket) =>
    start(socket, 'qemu-nbd', [
      '-t',
      '-e',
      '32',
      '-f',
      format,
      '--aio=io_uring',
      '-k',
      socket,
      image,
    ]);
}

/** `nbdkit` of a raw file. */
export function nbdkitServing(file: string): StartServer {
  return (socket) => start(socket, 'nbdkit', ['-f', '-U', socket, 'file', file]);
}

async function start(
  socket: string,
  command: string,
  words: readonly string[],
): Promise<NbdServer> {
  await rm(socket, { force: true });
  const child = spawn(command, words, { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => {
      resolve();
    });
  });
  while (!existsSync(socket)) {
    const pause = new Promise((resolve) => setTimeout(resolve, 20));
    await Promise.race([pause, ended.then(() => Promise.reject(new Error(`${command} ended`)))]);
  }
  return {
    processorSeconds: () => processorSecondsOf(child),
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

async function processorSecondsOf({ pid }: ChildProcess): Promise<number> {
  const text = await readFile(`/proc/${String(pid)}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}
