/** Sizes as people read them, printed as qemu-img prints them. */
import { exactInteger, toPrecisionEven } from './decimal.js';

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
  return `${formatSize(bytes)} (${exactInteger(bytes)} bytes)`;
}
