/** Standard input as a source of convert, and standard output as its target. */
import { constants, fstatSync, ftruncateSync, readFileSync, readSync } from 'node:fs';
import { addAbortSignal } from 'node:stream';
import { magicBytes, packingOf } from '../../image/graph/source-stream.js';
import { movePosition } from '../../native/file-position.js';
import { errnoName } from '../../system-errors.js';
import type { Session } from './session.js';

const zeroes = new Uint8Array(1024 * 1024);

/** The name that stands for standard input or output. */
export const standardStream = '-';

/** What failures call them. */
export const standardInputName = 'standard input';
export const standardOutputName = 'standard output';

/**
 * The path by which standard input can be read at any offset, where it is a file that was not read yet, and is
 * not packed.
 */
export function standardInputPath(): string | undefined {
  if (!fstatSync(0).isFile() || (movePosition(0, 0) ?? 0) > 0) return undefined;
  const begin = new Uint8Array(magicBytes);
  readSync(0, begin, 0, begin.length, 0);
  return packingOf(begin) === undefined ? '/dev/stdin' : undefined;
}

/** The bytes of standard input as they come. */
export function standardInput(session: Session): AsyncIterable<Uint8Array> {
  return addAbortSignal(session.signal, session.stdin) as AsyncIterable<Uint8Array>;
}

/** Writes a disk to standard output. @param disk as `readDisk` gives it */
export async function writeStandardOutput(
  disk: (isSparse: boolean) => AsyncIterable<Uint8Array | number>,
  session: Session,
): Promise<void> {
  const descriptor = sparseOutput(session);
  for await (const piece of disk(descriptor !== undefined)) {
    if (typeof piece !== 'number') await session.print(piece);
    else if (descriptor !== undefined) await leaveHole(session, descriptor, piece);
    else await printZeroes(session, piece);
  }
  // A hole at the end has made nothing longer yet.
  if (descriptor !== undefined) await endOutput(session, descriptor);
}

async function printZeroes(session: Session, lengthBytes: number): Promise<void> {
  for (let left = lengthBytes; left > 0; left -= zeroes.length) {
    await session.print(zeroes.subarray(0, Math.min(left, zeroes.length)));
  }
}

/**
 * The descriptor of standard output if what is not written there reads as zeroes: it is a file that ends where
 * the next write goes, and whose position can be moved. One that is opened for appending has none of its own.
 */
function sparseOutput({ stdout: { fd } }: Session): number | undefined {
  if (fd === undefined) return undefined;
  const facts = fstatSync(fd);
  if (!facts.isFile()) return undefined;
  const position = movePosition(fd, 0);
  if (position === undefined || position < facts.size) return undefined;
  try {
    const text = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
    const flags = /^flags:\s*([0-7]+)$/m.exec(text);
    return flags === null || parseInt(flags[1], 8) & constants.O_APPEND ? undefined : fd;
  } catch {
    return undefined;
  }
}

/** Moves on by so many bytes. Whoever writes there next, this program or another one, goes on behind them. */
async function leaveHole(session: Session, descriptor: number, lengthBytes: number): Promise<void> {
  await session.flush();
  const position = movePosition(descriptor, lengthBytes) ?? 0;
  if (position < 0) session.failOutput(Object.assign(new Error(), { code: errnoName(-position) }));
}

async function endOutput(session: Session, descriptor: number): Promise<void> {
  await session.flush();
  try {
    ftruncateSync(descriptor, movePosition(descriptor, 0));
  } catch (error) {
    session.failOutput(error as NodeJS.ErrnoException);
  }
}
