/** Numbers among the words of a command. */
import { parseSize } from '../../size.js';
import { IoFailure } from './failure.js';

/** Bytes of a request that is not made in pieces: 2 GiB less a sector. */
const mostRequestBytes = 2_147_483_136;
/** Bytes of a sector. */
export const sectorBytes = 512;

const unread = 'non-numeric argument, or extraneous/unrecognized suffix';
const mostMilliseconds = 2_147_483_647;

/**
 * A number of bytes, with a suffix if wanted.
 *
 * @throws IoFailure
 */
export function parseBytes(text: string): number {
  const size = parseSize(text);
  if (typeof size === 'bigint') return Number(size);
  const why = size === 'invalid' ? unread : 'argument too large';
  throw new IoFailure(`Parsing error: ${why} -- ${text}`);
}

/** As `parseBytes`, of one buffer. @throws IoFailure also for more than a request takes */
export function parseRequestBytes(text: string, condition = ''): number {
  const bytes = parseBytes(text);
  if (bytes <= mostRequestBytes) return bytes;
  throw new IoFailure(`length cannot exceed ${mostRequestBytes}${condition}, given ${text}`);
}

/** The lengths of several buffers. @throws IoFailure also for more than a request takes */
export function parseLengths(texts: readonly string[]): readonly number[] {
  const lengths = texts.map((text) => {
    const bytes = parseBytes(text);
    if (bytes <= mostRequestBytes) return bytes;
    throw new IoFailure(`Argument '${text}' exceeds maximum size ${mostRequestBytes}`);
  });
  if (lengths.reduce((sum, each) => sum + each, 0) <= mostRequestBytes) return lengths;
  throw new IoFailure(`The total number of bytes exceed the maximum size ${mostRequestBytes}`);
}

/** @throws IoFailure for what is no whole number of sectors */
export function requireSectors(value: number, name: 'offset' | 'count'): void {
  if (value % sectorBytes === 0) return;
  throw new IoFailure(`${value} is not a sector-aligned value for '${name}'`);
}

/** A byte, as C writes numbers. @throws IoFailure */
export function parsePattern(text: string): number {
  const value = parseNumber(text);
  if (value !== undefined && value <= 0xff) return value;
  throw new IoFailure(`${text} is not a valid pattern byte`);
}

/** @throws IoFailure */
export function parseMilliseconds(text: string): number {
  const value = parseNumber(text);
  if (value !== undefined) return Math.min(value, mostMilliseconds);
  throw new IoFailure(`${text} is not a valid number`);
}

/** Hexadecimal after `0x`, octal after `0`; undefined for what is no number, or below zero. */
function parseNumber(text: string): number | undefined {
  const digits = text.replace(/^\+/, '');
  if (/^0x[0-9a-f]+$/i.test(digits)) return Number(digits);
  if (/^0[0-7]*$/.test(digits)) return Number.parseInt(digits, 8);
  return /^[1-9]\d*$/.test(digits) ? Number(digits) : undefined;
}
