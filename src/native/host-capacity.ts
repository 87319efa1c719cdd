/** How much the host has for this process: memory, and processors for codecs. */
import { availableParallelism, totalmem } from 'node:os';

/** Of Node 18.15 and newer, and not of every other runtime. */
const { constrainedMemory } = process as { constrainedMemory?: () => number };

/** Bytes: what the process's control group is limited to, as a container's is, or all the machine has. */
function memoryLimit(): number {
  // Without a limit it is 0, or a number beyond all memory.
  const constrained = constrainedMemory?.() ?? 0;
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

/**
 * How many things a share of the memory that this process can have is enough for; one at least.
 *
 * @param share of all memory, from 0 to 1
 * @param bytes memory that each takes
 */
export function affordableCount(share: number, bytes: number): number {
  return Math.max(1, Math.floor((memoryLimit() * share) / bytes));
}

/** Runs of codecs under way that keep every processor busy; more only wait. */
export function usefulCodecRuns(): number {
  return availableParallelism() + 2;
}
