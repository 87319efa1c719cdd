/** Descriptors: of what Node has no name for, and as other programs send them along. */
import { type NativeWatch, addon, addonProblem } from './addon.js';

/** A descriptor that is watched. */
export type DescriptorWatch = NativeWatch;

/** Why there can be none, which takes the addon. */
export const descriptorProblem: string | undefined = addonProblem;

function needed(): NonNullable<typeof addon> {
  if (addon === undefined) throw new Error(descriptorProblem);
  return addon;
}

/**
 * Another descriptor of the same open file, which is the caller's to close.
 *
 * @returns a negated errno if there can be none
 */
export function duplicateDescriptor(descriptor: number): number {
  return needed().duplicateDescriptor(descriptor);
}

/** Closes a descriptor that Node has not opened, which it would warn of. */
export function closeDescriptor(descriptor: number): void {
  needed().closeDescriptor(descriptor);
}

/** As `Addon.readDescriptor`. */
export function readDescriptor(descriptor: number, into: Uint8Array): number {
  return needed().readDescriptor(descriptor, into);
}

/** As `Addon.writeDescriptor`. */
export function writeDescriptor(
  descriptor: number,
  bytes: Uint8Array,
  more?: Uint8Array,
): number {
  return needed().writeDescriptor(descriptor, bytes, more);
}

/** As `Addon.connectedSockets`. */
export function connectedSockets(ends: Int32Array): number {
  return needed().connectedSockets(ends);
}

/** Has one descriptor stand for the same open file as another. @returns a negated errno if it cannot */
export function replaceDescriptor(descriptor: number, by: number): number {
  return needed().replaceDescriptor(descriptor, by);
}

/** As `Addon.mountFuse`. */
export function mountFuse(path: string, options: string, isReadOnly: boolean): number {
  return needed().mountFuse(path, options, isReadOnly);
}

/** As `Addon.cloneFuse`. */
export function cloneFuse(descriptor: number): number {
  return needed().cloneFuse(descriptor);
}

/** As `Addon.unmount`. */
export function unmount(path: string): number {
  return needed().unmount(path);
}

/** As `Addon.receiveMessage`. */
export function receiveMessage(
  socket: number,
  into: Uint8Array,
  descriptors: Int32Array,
): number {
  return needed().receiveMessage(socket, into, descriptors);
}

/** As `Addon.sendMessage`. */
export function sendMessage(socket: number, bytes: Uint8Array, descriptors: Int32Array): number {
  return needed().sendMessage(socket, bytes, descriptors);
}

/** Calls back whenever a socket can be read from, or has ended. @returns a negated errno if it cannot be */
export function watchSocket(descriptor: number, onReadable: () => void): DescriptorWatch | number {
  return needed().watchDescriptor(descriptor, false, onReadable);
}

/** Calls back whenever an eventfd was signalled, once or more. @returns a negated errno if it cannot be */
export function watchEvent(descriptor: number, onSignal: () => void): DescriptorWatch | number {
  return needed().watchDescriptor(descriptor, true, onSignal);
}

/** Signals an eventfd. @returns a negated errno if it cannot be */
export function signalEvent(descriptor: number): number {
  return needed().signalEvent(descriptor);
}
