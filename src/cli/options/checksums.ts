/** Digests of a conversion's sources: printed, or compared with one that is expected. */
import { type ChecksumResult, digestBytes, isDigest } from '../../jobs/checksum.js';
import { CliError } from '../process/cli-error.js';

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
  const digits = digestBytes(algorithm) * 2;
  if (expected.length !== digits) {
    throw new CliError(`Invalid checksum '${given}': ${algorithm} has ${digits} digits`);
  }
  return { algorithm, expected: expected.toLowerCase() };
}

/** The digests of a source, as they are printed. */
export function checksumLines(
  algorithm: string,
  given: string,
  { file, content }: ChecksumResult,
): string {
  return `${algorithm} of the file ${given}: ${file}\n${algorithm} of the disk ${given}: ${content}\n`;
}
