/** Where programs need not say the same, each with why. Steps that are left out say so themselves. */
import type { RunResult } from '../support/tools.js';
import type { DiskFacts, Step } from './step.js';

/** Whether the texts of a step need not be the same; its exit code has to be, and what is then stored. */
export function isExcepted({ operation }: Step, disk: DiskFacts): boolean {
  // It counts clusters; and QEMU writes bitmaps anew when it opens an image to repair it, and tells of leaks.
  return operation === 'check -r' && (disk.hasBitmaps || disk.isStoredOtherwise);
}

/** Thrown where the real tool's image has lost clusters and ours has not: from then on they cannot be alike. */
export class PeerLeaks extends Error {}

/** Whether `check` found nothing wrong with ours, and nothing but leaks in the real tool's. */
export function onlyPeerLeaks(ours: RunResult, others: RunResult): boolean {
  return ours.code === 0 && others.code === 3;
}

/** Whether the real tool ended by an assertion of its own: then its image is not what it was to be. */
export function hasAborted({ code, stderr }: RunResult): boolean {
  return code >= 128 && /Assertion `.*' failed/.test(stderr);
}
