/** Digests of an image: of the bytes of its file, as publishers give them, and of the disk it holds. */
import { createHash, getHashes } from 'node:crypto';
import { CowherdError } from '../errors.js';
import type { Image } from '../image/api/image.js';
import type { LongOperationOptions } from '../image/api/long-operation.js';
import type { OpenImageOptions } from '../image/api/options.js';
import { readFileBytes } from '../image/report/file-bytes.js';
import { openImage } from '../image/graph/open.js';
import { openImageRules } from '../image/options/open-options.js';
import {
  type OptionRules,
  abortSignal,
  callback,
  checkOptions,
  options as optionsBy,
  text,
} from '../image/options/option-check.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import { DiskDigest } from './disk-digest.js';
import { readSparseContent } from './content.js';

/** Options of `checksum`. */
export interface ChecksumOptions extends LongOperationOptions {
  /** A digest that Node knows, such as `sha256`, `sha512` or `sha1`. */
  readonly algorithm: string;
  /** How the image is opened; it is only read. */
  readonly image?: OpenImageOptions | undefined;
}

/** Digests in hexadecimal. */
export interface ChecksumResult {
  /** Of the bytes of the image's own file. */
  readonly file: string;
  /** Of the disk as its guest sees it. */
  readonly content: string;
}

const rules: OptionRules<ChecksumOptions> = {
  algorithm: text,
  image: optionsBy(openImageRules),
  signal: abortSignal,
  onProgress: callback,
};

/** Whether there is a digest of that name. */
export function isDigest(algorithm: string): boolean {
  return getHashes().includes(algorithm);
}

/** Bytes of a digest that there is. */
export function digestBytes(algorithm: string): number {
  return createHash(algorithm).digest().length;
}

/**
 * Reads an image twice, as a file and as a disk, and digests both.
 *
 * @throws CowherdError ERR_COWHERD_INVALID_ARGUMENT for a digest that there is not, ERR_COWHERD_ABORTED, or
 *   what opening and reading throws
 */
export async function checksum(name: PathLike, options: ChecksumOptions): Promise<ChecksumResult> {
  const path = pathOf(name);
  checkOptions(options, rules, path, ['algorithm']);
  const { algorithm, signal, onProgress, image: opening = {} } = options;
  if (!isDigest(algorithm)) {
    const message = `There is no digest '${algorithm}'`;
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename: path });
  }
  try {
    const file = await digestFile(path, algorithm, opening, signal);
    await using image = await openImage(path, { shareWriting: false, ...opening, readOnly: true });
    return { file, content: await digestContent(image, algorithm, { signal, onProgress }) };
  } catch (error) {
    if (signal?.aborted !== true) throw error;
    throw new CowherdError('ERR_COWHERD_ABORTED', `Work on '${path}' was cancelled`, {
      filename: path,
      cause: error,
    });
  }
}

/** The digest of the bytes of a file. */
export async function digestFile(
  path: string,
  algorithm: string,
  opening: OpenImageOptions,
  signal: AbortSignal | undefined,
): Promise<string> {
  const digest = createHash(algorithm);
  for await (const piece of readFileBytes(path, opening, signal)) digest.update(piece);
  return digest.digest('hex');
}

/** The digest of an image's disk. */
export async function digestContent(
  image: Image,
  algorithm: string,
  options: LongOperationOptions,
): Promise<string> {
  const digest = new DiskDigest(algorithm);
  for await (const piece of readSparseContent(image, options)) {
    if (typeof piece === 'number') digest.addZeroes(piece);
    else digest.add(piece);
  }
  return digest.end();
}
