/** Sizes as people write them: `512`, `10k`, `1.5G`, with QEMU's suffixes. */
import { CowherdError } from '../errors.js';
import { maxOffset } from '../limits.js';

const suffixes = 'bkmgtpe';

/**
 * The bytes of a size with an optional suffix `b k K M G T P E` (powers of 1024). A fraction is
 * allowed where a suffix makes it whole bytes.
 *
 * @throws ERR_COWHERD_INVALID_ARGUMENT if it is no size, or beyond 2^53 - 1
 */
export function parseSize(size: number | string, name: string): number {
  const bytes = typeof size === 'number' ? size : parseText(size);
  if (bytes === undefined || !Number.isInteger(bytes) || bytes < 0) {
    throw new CowherdError(
      'ERR_COWHERD_INVALID_ARGUMENT',
      `Invalid ${name} '${size}': a number of bytes, with an optional suffix k, M, G, T, P or E, is expected`,
    );
  }
  if (bytes > maxOffset) {
    throw new CowherdError('ERR_COWHERD_OUT_OF_RANGE', `The ${name} '${size}' is too large`);
  }
  return bytes;
}

function parseText(text: string): number | undefined {
  const match = /^(0x[0-9a-f]+|\d+(?:\.\d+)?|\.\d+)([bkmgtpe]?)$/i.exec(text.trim());
  if (match === null) return undefined;
  const power = Math.max(0, suffixes.indexOf(match[2].toLowerCase()));
  if (power === 0 && match[1].includes('.')) return undefined;
  return Math.floor(Number(match[1]) * 1024 ** power);
}
