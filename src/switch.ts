/** Switches as QEMU writes them. */

/** The truth of a switch, or undefined for a text that is none. */
export function parseSwitch(value: string): boolean | undefined {
  if (['on', 'yes', 'true', 'y'].includes(value)) return true;
  if (['off', 'no', 'false', 'n'].includes(value)) return false;
  return undefined;
}
