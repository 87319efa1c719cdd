/** Standard input as a source of convert, and standard output as its target. */
import { createWriteStream } from 'node:fs';
import { fstatSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { describeErrno } from '../system-errors.js';
import type { Image, LongOperationOptions } from '../image/api.js';
import { readContent } from '../jobs/content.js';
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
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-'));
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  const file = path.join(folder, 'standard-input');
  try {
    await pipeline(session.stdin, createWriteStream(file), { signal: session.signal });
  } catch (error) {
    await remove();
    if (session.signal.aborted) throw error;
    const { code, syscall, message } = error as NodeJS.ErrnoException;
    const reason = code === undefined ? message : describeErrno(code);
    const attempt =
      syscall === 'read' ? 'read standard input' : `keep standard input in '${folder}'`;
    throw new CliError(`Could not ${attempt}: ${reason}`, { cause: error });
  }
  return { path: file, [Symbol.asyncDispose]: remove };
}

/** Writes the content of images, one after the other, to standard output. */
export async function writeStandardOutput(
  images: readonly Image[],
  session: Session,
  { signal, onProgress }: LongOperationOptions,
): Promise<void> {
  const totalBytes = images.reduce((sum, image) => sum + image.size, 0);
  let before = 0;
  for (const image of images) {
    const progress = ({ doneBytes }: { readonly doneBytes: number }): void => {
      onProgress?.({ doneBytes: before + doneBytes, totalBytes });
    };
    for await (const piece of readContent(image, { signal, onProgress: progress })) {
      await session.print(piece);
    }
    before += image.size;
  }
}
