/** The real tools. */
import { type ChildProcess, fork } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { RunResult } from '../support/tools.js';

/** What is to be run. */
export interface PeerOrder {
  readonly id: number;
  readonly command: string;
  readonly words: readonly string[];
  readonly folder: string;
}

interface PeerReply {
  readonly id: number;
  readonly result: RunResult;
}

const program = path.join(path.dirname(fileURLToPath(import.meta.url)), 'peer-process.js');
const waiting = new Map<number, (result: RunResult) => void>();
let started: ChildProcess | undefined;
let orders = 0;

/**
 * Runs the tool of which a command line is, and puts our name where it says its own.
 *
 * @param words a subcommand of qemu-img, or `io` and the arguments of qemu-io
 */
export async function runPeer(words: readonly string[], folder: string): Promise<RunResult> {
  const isIo = words[0] === 'io';
  const { stdout, stderr, code } = await (isIo
    ? order('qemu-io', words.slice(1), folder)
    : order('qemu-img', words, folder));
  if (isIo) return { stdout, stderr: stderr.replaceAll(/^qemu-io:/gm, 'cowherd:'), code };
  // The one command of the other tool that is recommended here as well.
  const renamed = (text: string): string => text.replaceAll(/qemu-img(?! amend)/g, 'cowherd');
  return { stdout: renamed(stdout), stderr: renamed(stderr), code };
}

/** What `info`, `map` and `check` say of an image, as JSON. */
export type Reports = Readonly<Record<(typeof reportNames)[number], RunResult>>;

/** The subcommands that tell of an image. */
export const reportNames = ['info', 'map', 'check'] as const;

const script = [
  `for report in ${reportNames.join(' ')}; do`,
  '  qemu-img "$report" --output=json "$@"; echo "=$?"',
  'done 2>&1',
].join('\n');

/** Runs qemu-img for each report; what is said on standard error is in their outputs too. */
export async function peerReports(words: readonly string[], folder: string): Promise<Reports> {
  const { stdout } = await order('sh', ['-c', script, 'sh', ...words], folder);
  const [info, map, check] = [...stdout.matchAll(/(.*?)^=(\d+)\n/gms)].map(([, text, code]) => ({
    stdout: text,
    stderr: '',
    code: Number(code),
  }));
  return { info, map, check };
}

/** Ends the process that runs the tools. */
export function leavePeer(): void {
  started?.disconnect();
  started = undefined;
}

function order(command: string, words: readonly string[], folder: string): Promise<RunResult> {
  const id = orders++;
  return new Promise((resolve) => {
    waiting.set(id, resolve);
    const asked: PeerOrder = { id, command, words, folder };
    peerProcess().send(asked);
  });
}

function peerProcess(): ChildProcess {
  if (started !== undefined) return started;
  started = fork(program, [], { execArgv: [] });
  started.on('message', ({ id, result }: PeerReply) => {
    waiting.get(id)?.(result);
    waiting.delete(id);
  });
  return started;
}
