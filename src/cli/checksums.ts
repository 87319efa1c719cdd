/** Digests of a conversion's sources: printed, or compared with one that is expected. */
import type { OpenImageOptions } from '../image/api.js';
import { checksum, isDigest } from '../jobs/checksum.js';
import { CliError } from './cli-error.js';
import type { ImageName } from './image-name.js';
import type { Session } from './session.js';

/** What `--checksum` asks for. */
export interface WantedChecksum {
  readonly algorithm: string;
  /** In hexadecimal, in small letters; undefined if the digests are to be printed. */
  readonly expected: string | undefined;
}

/** Understands `ALGORITHM[:HEX]`. */
export function parseChecksum(given: string | undefined): WantedChecksum | undefined {
  if (given === undefined) return undefined;
  const [name, expected, ...more] = given.split(':') as [string, ...(string | undefined)[]];
  const algorithm = name.toLowerCase();
  if (!isDigest(algorithm)) throw new CliError(`There is no digest '${name}'`);
  if (expected === undefined) return { algorithm, expected };
  if (more.length > 0 || !/^(?:[0-9a-f]{2})+$/i.test(expected)) {
    throw new CliError(`Invalid checksum '${given}': ALGORITHM or ALGORITHM:HEX is expected`);
  }
  return { algorithm, expected: expected.toLowerCase() };
}

/**
 * Digests the sources before anything is made of them: the bytes of their files, and their disks.
 *
 * @throws CliError if a source is none of what is expected
 */
export async function checkSources(
  { algorithm, expected }: WantedChecksum,
  sources: readonly ImageName[],
  opening: OpenImageOptions,
  session: Session,
): Promise<void> {
  for (const { path, given, format, opening: own } of sources) {
    const { file, content } = await checksum(path, {
      algorithm,
      image: { ...opening, ...own, format },
      signal: session.signal,
    });
    if (expected === undefined) {
      await session.print(`${algorithm} of the file ${given}: ${file}\n`);
      await session.print(`${algorithm} of the disk ${given}: ${content}\n`);
    } else if (expected !== file && expected !== content) {
      throw new CliError(
        `'${given}' is not what was expected: the ${algorithm} of the file is ${file}, that of the disk ${content}`,
      );
    }
  }
}
