/** Starting this program anew. */
import { addon } from './addon.js';

/**
 * Starts this program anew in place of itself, with a variable in its environment; before it has read
 * or written anything. Returns where that cannot be, as without the addon.
 */
export function restartWith(name: string, value: string): void {
  addon?.restartWith(name, value);
}
