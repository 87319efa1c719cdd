/** Sizes as people write them: `512`, `10k`, `1.5G`, with QEMU's suffixes and QEMU's rules. */
import { CowherdError } from './errors.js';
import { maxOffset } from './limits.js';

/** Why a text is no size: not a number at all, or one beyond 0 to 2^63 - 1. */
export type SizeFailure = 'invalid' | 'out-of-range';

const suffixes = 'BKMGTPE';
const largest = 2n ** 63n - 1n;
const sectorSize = 512n;

/**
 * Parses a size in bytes: decimal with an optional fraction and suffix (b, k, M, G, T, P, E in
 * either case, powers of 1024), or hexadecimal without one. A fraction of a byte is refused where
 * no suffix makes it bytes, and rounded otherwise.
 */
export function parseSize(text: string): bigint | SizeFailure {
  const trimmed = text.trimStart();
  if (/^-\d+$/.test(trimmed)) return /^-0+$/.test(trimmed) ? 0n : 'out-of-range';
  const hexadecimal = /^\+?(0x[0-9a-f]+)$/i.exec(trimmed);
  if (hexadecimal) return inRange(BigInt(hexadecimal[1]));
  const decimal = /^\+?(\d*)(?:\.(\d*))?([bkmgtpe]?)$/i.exec(trimmed);
  if (!decimal) return 'invalid';
  const [, whole, fraction = '', suffix] = decimal;
  if (whole === '' && fraction === '') return 'invalid';
  const unit = 1024n ** BigInt(Math.max(0, suffixes.indexOf(suffix.toUpperCase())));
  const part = Number(`0.${fraction}0`);
  if (part > 0 && unit === 1n) return 'invalid';
  return inRange(BigInt(whole) * unit + BigInt(Math.round(part * Number(unit))));
}

function inRange(value: bigint): bigint | SizeFailure {
  return value > largest ? 'out-of-range' : value;
}

/**
 * The bytes of a size that a program gives, as a number or a text.
 *
 * @param name what it is the size of, for messages
 * @throws ERR_COWHERD_INVALID_ARGUMENT if it is no size, ERR_COWHERD_OUT_OF_RANGE beyond 2^53 - 1
 */
export function sizeInBytes(size: number | string, name: string): number {
  const bytes = exactBytes(size, name);
  if (bytes > BigInt(maxOffset)) throw tooLarge(size, name);
  return Number(bytes);
}

/**
 * The size of a disk, in whole sectors: a number is exact then, however large the disk.
 *
 * @throws as `sizeInBytes`, but only beyond 2^63 - 1
 */
export function diskSize(size: number | string): number {
  const bytes = exactBytes(size, 'image size');
  return Number(((bytes + sectorSize - 1n) / sectorSize) * sectorSize);
}

function exactBytes(size: number | string, name: string): bigint {
  const isNumber = typeof size === 'number';
  if (isNumber && size > Number(largest)) throw tooLarge(size, name);
  let bytes: bigint | SizeFailure = 'invalid';
  if (!isNumber) bytes = parseSize(size);
  else if (Number.isInteger(size) && size >= 0) bytes = BigInt(size);
  if (bytes === 'out-of-range') throw tooLarge(size, name);
  if (bytes !== 'invalid') return bytes;
  throw new CowherdError(
    'ERR_COWHERD_INVALID_ARGUMENT',
    `Invalid ${name} '${size}': a number of bytes, with an optional suffix k, M, G, T, P or E, is expected`,
  );
}

function tooLarge(size: number | string, name: string): CowherdError {
  return new CowherdError(
    'ERR_COWHERD_OUT_OF_RANGE',
    `The ${name} '${size}' is too large, or below zero`,
  );
}
