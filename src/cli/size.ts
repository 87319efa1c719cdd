/** Sizes as people write and read them: parsing with QEMU's suffixes, printing as qemu-img does. */
import { toPrecisionEven } from './decimal.js';

/** Why a text is no size: not a number at all, or one beyond 0 to 2^63 - 1. */
export type SizeFailure = 'invalid' | 'out-of-range';

const suffixes = 'BKMGTPE';
const largest = 2n ** 63n - 1n;

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

const unitNames = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

/** A size in bytes with three significant digits and a binary unit, such as `1.43 MiB`. */
export function formatSize(bytes: number): string {
  // A unit begins at 1000 of the smaller one, so that no four digits are ever needed before it.
  let power = 0;
  while ((bytes / 1000) * 1024 >= 1024 ** (power + 1)) power += 1;
  return `${threeDigits(bytes / 1024 ** power)} ${unitNames[power]}B`;
}

/** A number as C's `%.3g` prints it, within what sizes need. */
function threeDigits(value: number): string {
  const [mantissa, exponent] = toPrecisionEven(value, 3).split('e+');
  if (exponent) return `${Number(mantissa)}e+${exponent.padStart(2, '0')}`;
  return String(Number(mantissa));
}

/** A size in bytes with both forms, such as `1 MiB (1048576 bytes)`. */
export function formatSizeAndBytes(bytes: number): string {
  return `${formatSize(bytes)} (${bytes} bytes)`;
}
