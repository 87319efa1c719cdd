/** Another size for the disk of an open image, whichever format it has, while its queues go on. */
import { problemWith } from '../../errors.js';
import type { Preallocation } from '../../format/create-options.js';
import type { FormatImage, FormatQueue } from '../../format/driver.js';
import { sizeInBytes } from '../../size.js';
import type { ResizeOptions } from '../api/options.js';
import { type OptionRules, abortSignal, flag, oneOf } from '../options/option-check.js';
import { type WholeDisk, checkWritable } from './whole-disk.js';

/** Disks end on a sector. */
const sectorBytes = 512;

/** Rules of `resize`'s options. */
export const resizeRules: OptionRules<ResizeOptions> = {
  shrink: flag,
  preallocation: oneOf('off', 'metadata', 'falloc', 'full'),
  signal: abortSignal,
};

/** See `Image.resize`. */
export async function resizeDisk(
  disk: WholeDisk,
  wanted: number | string,
  { shrink = false, preallocation: asked = 'off', signal }: ResizeOptions,
): Promise<void> {
  const { filename, format, node } = disk;
  const size = sizeInBytes(wanted, 'image size');
  const { resizing } = format;
  checkWritable(disk);
  if (resizing === undefined) {
    const why = 'Image format driver does not support resize';
    const reason = 'Operation not supported';
    throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why, { reason });
  }
  if (size % sectorBytes !== 0) {
    const why = `The new size must be a multiple of ${sectorBytes}`;
    throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
  }
  const { size: old } = node;
  if (size < old && !shrink) {
    const why = 'a smaller size has to be allowed (shrink): what lies beyond would be gone';
    throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
  }
  if (size <= old && asked !== 'off') {
    const why = 'Preallocation can only be used for growing images';
    throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
  }
  const { leastPreallocation: least = 'off' } = resizing;
  const preallocation = size > old && asked === 'off' ? least : asked;
  await resizing.check(size, preallocation, size > old && node.belowSize > old);
  signal?.throwIfAborted();
  if (size !== old) await forgetVmState(disk);
  if (size > old) {
    await node.runAlone(() => resizing.grow(size, preallocation, signal));
    if (preallocation !== 'off') await preallocateAdded(disk, old, size, preallocation, signal);
    await hideOldBytes(disk, old, size, preallocation !== 'off');
  } else if (size < old) await giveUpBeyond(disk, old, size);
  await node.runAlone(async () => {
    await resizing.finish(size);
    node.resize(size);
  });
}

/** Machine state lies where a larger disk would come to show it. */
async function forgetVmState({ format, openQueue }: WholeDisk): Promise<void> {
  const { offset = 0, end = 0 } = format.vmState ?? {};
  if (end <= offset) return;
  const { queue, close } = openQueue();
  try {
    await queue.forget?.(offset, end - offset);
    await queue.flush();
  } finally {
    await close();
  }
}

/**
 * What is added is to read as zeroes: what the last cluster still has of a disk that was larger once is not to
 * show, nor what the image below has beyond the old end.
 */
async function hideOldBytes(
  { format, node, openQueue }: WholeDisk,
  old: number,
  size: number,
  isPreallocated: boolean,
): Promise<void> {
  const [oldEnd, end] = [old, size].map((each) => clusterEnd(format, each));
  const isAbove = node.belowSize > old;
  // What was given its place hides what lies below already.
  const to = isAbove && !isPreallocated ? end : oldEnd;
  if (to === old) return;
  const { queue, close } = openQueue();
  try {
    if (!isAbove) {
      const bytes = Buffer.alloc(to - old);
      await queue.read(bytes, old);
      // What holds nothing goes on doing so.
      if (bytes.equals(Buffer.alloc(bytes.length))) return;
    }
    await queue.writeZeroes(old, to - old, true);
    await queue.flush();
  } finally {
    await close();
  }
}

/** Gives what is added its place in the file; if that fails, nothing of it is left. */
async function preallocateAdded(
  { format, node, openQueue }: WholeDisk,
  old: number,
  size: number,
  mode: Exclude<Preallocation, 'off'>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { queue, close } = openQueue();
  try {
    const hidesBelow = node.belowSize > old;
    // What shares a cluster with the old end, and shows what lies below, goes on doing so.
    const from = hidesBelow ? clusterEnd(format, old) : old;
    if (from < size) await queue.preallocate?.(from, size - from, { mode, hidesBelow, signal });
    await queue.flush();
  } catch (error) {
    await forgetClusters(queue, format, old, size);
    throw error;
  } finally {
    await close();
  }
}

/** Gives up the whole clusters between the ends of a smaller and a larger disk. */
async function forgetClusters(
  queue: FormatQueue,
  format: FormatImage,
  size: number,
  old: number,
): Promise<void> {
  const [from, to] = [size, old].map((each) => clusterEnd(format, each));
  if (to > from) await queue.forget?.(from, to - from);
  await queue.flush();
}

/** Where the cluster ends that a disk of some size ends in. */
function clusterEnd({ clusterSize = 1 }: FormatImage, size: number): number {
  return Math.ceil(size / clusterSize) * clusterSize;
}

/** Requests end before the new end from now on; what lies beyond is given up. */
async function giveUpBeyond(
  { format, node, openQueue }: WholeDisk,
  old: number,
  size: number,
): Promise<void> {
  await node.runAlone(() => {
    node.resize(size);
    return Promise.resolve();
  });
  const { queue, close } = openQueue();
  try {
    await forgetClusters(queue, format, size, old);
  } catch (error) {
    await node.runAlone(() => {
      node.resize(old);
      return Promise.resolve();
    });
    throw error;
  } finally {
    await close();
  }
}
