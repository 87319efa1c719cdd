/** The position of an open descriptor, which it shares with the other programs that write there. */
import { addon } from './addon.js';

/**
 * Moves the position at which the next write to a descriptor goes on.
 *
 * @param distanceBytes negative to go back
 * @returns the position in bytes; a negated errno; undefined without the addon, as Node has no lseek(2)
 */
export function movePosition(descriptor: number, distanceBytes: number): number | undefined {
  return addon?.movePosition(descriptor, distanceBytes);
}
