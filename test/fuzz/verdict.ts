/** What becomes of a malformed image: opened, described, read as far as it has data, and checked. */
import { CowherdError } from '../../src/errors.js';
import type { Image } from '../../src/image/api/image.js';
import { openImageOn } from '../../src/image/graph/open.js';
import type { StorageOperation } from '../../src/storage/filters/filter-file.js';
import { FilterFile } from '../../src/storage/filters/filter-file.js';
import { MemoryFile } from '../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../src/storage/storage.js';

/** `ok` or the code of the error, step by step; the check by what it found. */
export interface Verdict {
  readonly open: string;
  readonly read: string;
  readonly check: string;
}

/** Guest bytes that are read of an image at most. */
const mostGuestBytes = 4 * 1024 * 1024;
/** Extents that are looked at; a hostile table may say anything of every cluster. */
const mostExtents = 20_000;
/**
 * What a case may read of its file: a fixed part, and so many times its length. Tables that point at
 * each other are read once for each pointer, and there are at most as many as the file has bytes.
 */
const mostBytes = (fileBytes: number): number => 64 * 1024 * 1024 + 512 * fileBytes;

/** Counts what is read of a file. */
class MeteredFile extends FilterFile {
  bytes = 0;

  static over(inner: StorageFile): MeteredFile {
    return new MeteredFile(inner);
  }

  openQueue(): StorageFile {
    return this;
  }

  protected intercept({ kind, length }: StorageOperation): undefined {
    if (kind === 'read') this.bytes += length;
    return undefined;
  }
}

/**
 * Judges the bytes of an image.
 *
 * @throws whatever is no error of ours, or an Error saying which bound was broken
 */
export async function judgeImage(bytes: Uint8Array): Promise<Verdict> {
  const file = new MemoryFile('hostile');
  await file.write(bytes, 0);
  const metered = MeteredFile.over(file);
  const verdict = await run(metered);
  const allowed = mostBytes(bytes.length);
  if (metered.bytes > allowed) {
    throw new Error(`${metered.bytes} bytes were read of a file of ${bytes.length}`);
  }
  return verdict;
}

async function run(file: StorageFile): Promise<Verdict> {
  let image: Image;
  try {
    image = await openImageOn(file, { readOnly: true, backing: 'deny', cacheSize: 1 });
  } catch (error) {
    return { open: codeOf(error), read: '-', check: '-' };
  }
  try {
    return { open: 'ok', read: await readAll(image), check: await check(image) };
  } finally {
    await image.close();
  }
}

async function readAll(image: Image): Promise<string> {
  try {
    await image.info();
    let bytes = 0;
    let extents = 0;
    for await (const { start, length, data } of image.map()) {
      if (++extents > mostExtents || bytes >= mostGuestBytes) break;
      if (!data) continue;
      const buffer = new Uint8Array(Math.min(length, 256 * 1024));
      bytes += buffer.length;
      await image.read(buffer, start);
    }
    return 'ok';
  } catch (error) {
    return codeOf(error);
  }
}

async function check(image: Image): Promise<string> {
  try {
    const { corruptions, leaks, checkErrors } = await image.check();
    if (checkErrors > 0) return 'errors';
    if (corruptions > 0) return 'corrupt';
    return leaks > 0 ? 'leaks' : 'clean';
  } catch (error) {
    // The format has no checks.
    if (error instanceof CowherdError && error.code === 'ERR_COWHERD_UNSUPPORTED') return '-';
    return codeOf(error);
  }
}

function codeOf(error: unknown): string {
  if (!(error instanceof CowherdError)) throw error;
  // One line that names the file; whoever sees it has nothing else to go by.
  if (!error.message.includes('hostile') || error.message.includes('\n')) {
    throw new Error(`not one line that names the file: ${error.message}`, { cause: error });
  }
  return error.code;
}
