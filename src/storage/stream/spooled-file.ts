/**
 * A stream as a file that can be read at any offset: kept in the folder for temporary files, with holes for
 * its zeroes, under no name, so that it goes with whoever has it open.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CowherdError } from '../../errors.js';
import { zeroRuns } from '../../native/zero-scan.js';
import { describeErrno } from '../../system-errors.js';
import { openFile } from '../file/open-file.js';
import { WindowFile } from '../filters/window.js';
import type { StorageFile, StorageOpenOptions } from '../storage.js';
import type { ByteStream } from './byte-stream.js';

/** Zeroes in bytes, aligned to as much, that are worth a hole: the block of most file systems. */
const holeBytes = 4096;

/** The file that is left of a stream. */
class SpooledFile extends WindowFile {
  /** Nobody else can change it. */
  readonly isLockless = true;

  override openQueue(): SpooledFile {
    return new SpooledFile(this.inner.openQueue(), this, this.window);
  }
}

/**
 * Reads a stream to its end and makes it a file, which is only read. The stream is closed.
 *
 * @throws CowherdError ERR_COWHERD_IO where there is no room for it; what reading it throws
 */
export async function spool(
  stream: ByteStream,
  { protocol, signal, ...opening }: StorageOpenOptions & { readonly protocol: string },
): Promise<StorageFile> {
  const parent = tmpdir();
  let folder: string | undefined;
  try {
    folder = await keeping(stream, parent, () => mkdtemp(path.join(parent, 'cowherd-')));
    const file = path.join(folder, 'stream');
    const length = await fill(stream, file, signal);
    const inner = await openFile(file, { ...opening, readOnly: true, locking: 'off' });
    const { filename } = stream;
    return new SpooledFile(inner, { protocol, filename }, { start: 0, length });
  } finally {
    await stream.close().catch(() => undefined);
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

/** @returns the bytes there were */
async function fill(
  stream: ByteStream,
  place: string,
  signal: StorageOpenOptions['signal'],
): Promise<number> {
  await using file = await keeping(stream, place, () => open(place, 'wx', 0o600));
  let end = 0;
  for await (const piece of stream) {
    signal?.throwIfAborted();
    let at = 0;
    let isData = true;
    for (const length of zeroRuns(piece, holeBytes)) {
      for (let done = 0; isData && done < length;) {
        const { bytesWritten } = await keeping(stream, place, () =>
          file.write(piece, at + done, length - done, end + at + done),
        );
        done += bytesWritten;
      }
      at += length;
      isData = !isData;
    }
    end += piece.length;
  }
  await keeping(stream, place, () => file.truncate(end));
  return end;
}

/** @throws CowherdError that names the place, in place of what the work throws */
async function keeping<Result>(
  { title, filename }: ByteStream,
  place: string,
  work: () => Promise<Result>,
): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === undefined ? message : describeErrno(code);
    throw new CowherdError('ERR_COWHERD_IO', `Could not keep ${title} in '${place}': ${reason}`, {
      filename,
      reason,
      cause: error,
    });
  }
}
