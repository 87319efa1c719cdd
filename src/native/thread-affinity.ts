/** Which processors a thread runs on. */
import { addon } from './addon.js';
import { describeErrno, errnoName } from '../system-errors.js';

/**
 * Has this thread run on these processors alone.
 *
 * @returns why it cannot
 */
export function pinThread(processors: readonly number[]): string | undefined {
  if (addon === undefined) return 'it takes the native addon';
  const result = addon.pinThread(Int32Array.from(processors));
  return result < 0 ? describeErrno(errnoName(result)) : undefined;
}
