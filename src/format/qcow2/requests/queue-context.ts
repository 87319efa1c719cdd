/** What the parts of one queue work with: its files, its share of the allocation, its limbo. */
import type { Arena } from '../../../engine/space/arena.js';
import type { QueueCounters } from '../../../engine/queues/counters.js';
import type { Turnstile } from '../../../engine/queues/turnstile.js';
import type { UnflushedData } from '../../../engine/flush/unflushed.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { BackingReader } from '../../driver.js';
import {
  type ClusterIndex,
  type GuestOffset,
  type HostOffset,
  asClusterIndex,
} from '../layout/geometry.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import type { Payload } from '../../encryption/payload.js';

/** One queue's resources. */
export interface QueueContext {
  readonly metadata: Qcow2Metadata;
  /** The image file through this queue's ring. */
  readonly file: StorageFile;
  /** The way to uncompressed guest data: in the external data file, or the image file. */
  readonly payload: Payload<GuestOffset, HostOffset>;
  /** Whether guest data lie in an external data file, at their guest offsets. */
  readonly externalData: boolean;
  /** Whether the external data file must at every instant be readable as a raw image. */
  readonly rawExternalData: boolean;
  readonly backing: BackingReader | undefined;
  /** Format version: 2 has no zero clusters. */
  readonly version: 2 | 3;
  /** The queue's line in the control block. */
  readonly line: number;
  readonly arena: Arena;
  /** By which writes take clusters in the order in which they began; undefined if they need not. */
  readonly turns: Turnstile | undefined;
  readonly unflushed: UnflushedData;
  readonly counters: QueueCounters;
}

/** Host clusters that lost a reference, before they have an epoch. */
export interface RemovedClusters {
  readonly cluster: ClusterIndex;
  readonly count: number;
}

/** Puts clusters whose references were just removed from the tables into limbo. */
export function intoLimbo(
  context: QueueContext,
  removed: readonly RemovedClusters[],
  punch: boolean,
): void {
  if (removed.length === 0) return;
  const { metadata } = context;
  const { epoch, round } = metadata.closeEpoch();
  for (const { cluster, count } of removed) {
    metadata.limbo.add({ cluster, count, epoch, round, punch });
  }
}

/** Whether the clusters that the arena gives next read as zeroes to the guest. */
export function freshReadZero({ arena, payload }: QueueContext): boolean {
  return arena.knownZero && payload.isPlain;
}

/**
 * Takes consecutive clusters from the queue's arena, as `Arena.take` gives them.
 *
 * @returns where the first one begins
 */
export function takeClusters({ arena, metadata }: QueueContext, count: number): HostOffset {
  return metadata.geometry.startOf(asClusterIndex(arena.take(count)));
}

/**
 * Whether there is an image below, however short: where that has nothing now, a longer one may stand there some day,
 * and is not to show what was given up here.
 */
export function hasBelow({ backing }: QueueContext): boolean {
  return backing !== undefined && backing.size > 0;
}

/** Whether guest bytes that are not in this image read as zeroes from a guest offset on. */
export function nothingBelow(context: QueueContext, guestOffset: GuestOffset): boolean {
  return context.backing === undefined || guestOffset >= context.backing.size;
}
