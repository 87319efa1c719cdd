/** How much memory there is for this process. */
import { totalmem } from 'node:os';

/** Of Node 18.15 and newer, and not of every other runtime. */
const { constrainedMemory } = process as { constrainedMemory?: () => number };

/**
 * Bytes of memory that this process can have: what its control group is limited to, as a container's is,
 * or all that the machine has.
 */
export function memoryLimit(): number {
  // Without a limit it is 0, or a number beyond all memory.
  const constrained = constrainedMemory?.() ?? 0;
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}
