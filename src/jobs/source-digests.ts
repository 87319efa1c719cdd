/** Digests of what a conversion reads, told of and compared with what is expected. */
import { CowherdError } from '../errors.js';
import type { OpenedSource } from './conversion-source.js';
import type { ConvertOptions } from './convert-options.js';

/** @throws ERR_COWHERD_CHECKSUM if a source is not what is expected */
export async function checkDigests(
  source: OpenedSource,
  { checksum, onChecksum, signal }: ConvertOptions,
): Promise<void> {
  if (checksum === undefined) return;
  const { algorithm, expected } = checksum;
  for (const [index, result] of (await source.checksums(signal)).entries()) {
    onChecksum?.(result, index);
    const { file, content } = result;
    if (expected === undefined || [file, content].includes(expected.toLowerCase())) continue;
    const filename = source.filenames[index];
    throw new CowherdError(
      'ERR_COWHERD_CHECKSUM',
      `'${filename}' is not what was expected: the ${algorithm} of the file is ${file}, that of the disk ${content}`,
      { filename },
    );
  }
}
