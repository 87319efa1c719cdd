/** Standard input as a source of convert, and standard output as its target. */
import { constants, fstatSync, ftruncateSync, readFileSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { addAbortSignal } from 'node:stream';
import { describeErrno, errnoName } from '../system-errors.js';
import type { Image, LongOperationOptions } from '../image/api.js';
import { readContent, readSparseContent, sparsePieces } from '../jobs/content.js';
import { movePosition } from '../native/file-position.js';
import { CliError } from './cli-error.js';
import type { Session } from './session.js';

/** The name that stands for standard input or output. */
export const standardStream = '-';

/** Standard input as a file that can be read at any offset. */
export interface SpooledInput extends AsyncDisposable {
  readonly path: string;
}

/**
 * Makes standard input a file: a disk's size has to be known before it is converted, and a pipe
 * does not tell. What is a file already is used where it lies.
 */
export async function spoolStandardInput(session: Session): Promise<SpooledInput> {
  if (fstatSync(0).isFile()) {
    return { path: '/dev/stdin', [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  const folder = await makeSpoolFolder();
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  const file = path.join(folder, 'standard-input');
  try {
    await spool(session, file);
  } catch (error) {
    await remove();
    if (session.signal.aborted) throw error;
    throw spoolFailure(error, file);
  }
  return { path: file, [Symbol.asyncDispose]: remove };
}

async function makeSpoolFolder(): Promise<string> {
  const parent = tmpdir();
  try {
    return await mkdtemp(path.join(parent, 'cowherd-'));
  } catch (error) {
    throw spoolFailure(error, parent);
  }
}

/** Copies standard input to a file, of which zeroes become holes. */
async function spool(session: Session, file: string): Promise<void> {
  await using target = await open(file, 'wx', 0o600);
  let end = 0;
  const input = addAbortSignal(session.signal, session.stdin) as AsyncIterable<Uint8Array>;
  for await (const chunk of input) {
    for (const piece of sparsePieces(chunk)) {
      if (typeof piece === 'number') {
        end += piece;
        continue;
      }
      for (let at = 0; at < piece.length;) {
        const { bytesWritten } = await target.write(piece, at, piece.length - at, end);
        at += bytesWritten;
        end += bytesWritten;
      }
    }
  }
  await target.truncate(end);
}

function spoolFailure(error: unknown, place: string): CliError {
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  const reason = code === undefined ? message : describeErrno(code);
  const attempt = syscall === 'read' ? 'read standard input' : `keep standard input in '${place}'`;
  return new CliError(`Could not ${attempt}: ${reason}`, { cause: error });
}

/** Writes the content of images, one after the other, to standard output. */
export async function writeStandardOutput(
  images: readonly Image[],
  session: Session,
  { signal, onProgress }: LongOperationOptions,
): Promise<void> {
  const totalBytes = images.reduce((sum, image) => sum + image.size, 0);
  const descriptor = sparseOutput(session);
  const read = descriptor !== undefined ? readSparseContent : readContent;
  let before = 0;
  for (const image of images) {
    const progress = ({ doneBytes }: { readonly doneBytes: number }): void => {
      onProgress?.({ doneBytes: before + doneBytes, totalBytes });
    };
    for await (const piece of read(image, { signal, onProgress: progress })) {
      if (typeof piece !== 'number') await session.print(piece);
      else if (descriptor !== undefined) await leaveHole(session, descriptor, piece);
    }
    before += image.size;
  }
  // A hole at the end has made nothing longer yet.
  if (descriptor !== undefined) await endOutput(session, descriptor);
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
