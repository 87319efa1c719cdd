/** Servers that race: ours and others, started for a run, with the processor time that they take. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Figure } from './duel.js';

const cli = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', 'bundle', 'main.cjs');
/** Clock ticks a second in /proc, on every Linux that there is. */
const ticks = 100;

/** A server that runs. */
export interface RunningServer {
  /** Seconds of the processors that it has taken so far. */
  processorSeconds(): Promise<number>;
  stop(): Promise<void>;
}

/** How a server is started. @param socket that it has to listen at */
export type StartServer = (socket: string) => Promise<RunningServer>;

/** `cowherd serve` of what words name, on so many threads. */
export function cowherdServing(image: readonly string[], workers: number): StartServer {
  const listening = (socket: string): readonly string[] => ['--nbd', `unix:${socket}`];
  return (socket) =>
    start(socket, process.execPath, [
      ...[cli, 'serve', ...listening(socket), '--workers', String(workers), ...image],
    ]);
}

/** `cowherd serve` of an image as a block device with four queues, on so many threads. */
export function cowherdDevice(image: string, workers: number): StartServer {
  return (socket) =>
    start(socket, process.execPath, [
      ...[cli, 'serve', '-f', 'qcow2', '--vhost-user-blk', `unix:${socket},queues=4`],
      ...['--workers', String(workers), image],
    ]);
}

/** `qemu-storage-daemon` of an image as such a device. */
export function qemuDevice(image: string): StartServer {
  return (socket) =>
    start(socket, 'qemu-storage-daemon', [
      ...['--blockdev', `driver=file,node-name=file,aio=io_uring,filename=${image}`],
      ...['--blockdev', 'driver=qcow2,node-name=disk,file=file', '--object', 'iothread,id=thread'],
      '--export',
      `type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=4,iothread=thread,addr.type=unix,addr.path=${socket}`,
    ]);
}

/** `qemu-nbd` of what words name. */
export function qemuServing(image: readonly string[]): StartServer {
  return (socket) =>
    start(socket, 'qemu-nbd', ['-t', '-e', '32', '--aio=io_uring', '-k', socket, ...image]);
}

/** `nbdkit` of a raw file. */
export function nbdkitServing(file: string): StartServer {
  return (socket) => start(socket, 'nbdkit', ['-f', '-U', socket, 'file', file]);
}

/** What comes of clients of a server, and what it took of the processors. */
export async function withServer(
  start: StartServer,
  folder: string,
  run: (uri: string) => Promise<number>,
): Promise<Figure> {
  const socket = path.join(folder, 'bench.sock');
  const server = await start(socket);
  try {
    const before = await server.processorSeconds();
    const figure = await run(`nbd+unix:///?socket=${socket}`);
    return { figure, processorSeconds: (await server.processorSeconds()) - before };
  } finally {
    await server.stop();
  }
}

async function start(
  socket: string,
  command: string,
  words: readonly string[],
): Promise<RunningServer> {
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
