/** Descriptors that outlive what Node has them for. */
import { addon, addonProblem } from './addon.js';

/** Why there can be none, which takes the addon. */
export const descriptorProblem: string | undefined = addonProblem;

/**
 * Another descriptor of the same open file, which is the caller's to close.
 *
 * @returns a negated errno if there can be none
 */
export function duplicateDescriptor(descriptor: number): number {
  if (addon === undefined) throw new Error(descriptorProblem);
  return addon.duplicateDescriptor(descriptor);
}
