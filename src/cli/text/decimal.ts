/**
 * Decimal fractions rounded as C's printf does: what lies exactly in the middle goes to the even
 * neighbour, where JavaScript takes the larger one. Sizes and ratios of powers of two often do.
 */

/** As `Number.prototype.toFixed`, for values that are not negative. */
export function toFixedEven(value: number, decimals: number): string {
  const rounded = value.toFixed(decimals);
  const exact = value.toFixed(100);
  return isHalf(exact.slice(exact.indexOf('.') + 1 + decimals)) ? evened(rounded) : rounded;
}

/** As `Number.prototype.toPrecision`, for values that are not negative. */
export function toPrecisionEven(value: number, digits: number): string {
  const rounded = value.toPrecision(digits);
  const [mantissa] = value.toExponential(100).split('e');
  return isHalf(mantissa.replace('.', '').slice(digits)) ? evened(rounded) : rounded;
}

function isHalf(rest: string): boolean {
  return /^50*$/.test(rest);
}

/** The last digit made even downwards: it was rounded up, so it is odd by one too many. */
function evened(rounded: string): string {
  const [mantissa, ...exponent] = rounded.split('e');
  const even = mantissa.replace(/[13579]$/, (digit) => String(Number(digit) - 1));
  return [even, ...exponent].join('e');
}

/** The digits of an integer, all of them also beyond 2^53, where numbers are printed rounded. */
export function exactInteger(value: number): string {
  return Number.isSafeInteger(value) ? String(value) : BigInt(value).toString();
}
