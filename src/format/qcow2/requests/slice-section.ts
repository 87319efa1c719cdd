/**
 * Sections over the L2 entries of one slice, and claims on them: the one protocol by which requests
 * change how guest clusters are stored.
 *
 *     pin the slice ─▶ take its word ─▶ look, decide ─┬─▶ claimed by another: announce, give the word
 *                            ▲                        │   back, wait for its end ──┐
 *                            └────────────────────────┼────────────────────────────┘
 *                                                     ├─▶ changed at once
 *                                                     └─▶ claim ─▶ write ─▶ link, end the claim, wake
 *
 * Nothing awaits while it holds the word; a claim keeps the slice pinned and its entries its own
 * meanwhile.
 */
import assert from 'node:assert/strict';
import { Counter } from '../../../engine/queues/counters.js';
import type { GuestOffset } from '../layout/geometry.js';
import { type QueueContext, intoLimbo } from './queue-context.js';

/** Consecutive entries of a slice that are claimed together. */
export interface Claim {
  readonly slot: number;
  /** Index in the slice of the first one. */
  readonly entry: number;
  readonly count: number;
  /** The line of the queue that holds the claim, or `unclaimed`. */
  holder: number;
}

/** Of a claim that is not begun, or has ended. */
export const unclaimed = -1;

/**
 * What is done under the word of a slice, from the entry on that maps the guest offset it was asked for.
 *
 * @returns undefined, with nothing changed, if that entry is claimed
 */
export type SliceSection<Result> = (slot: number, entry: number) => Result | undefined;

/**
 * Runs a section on the slice that maps a guest offset in bytes, in an L2 table that belongs to this
 * image alone; again after each claim that it meets.
 *
 * @throws what the section throws, or what loading the slice or making its table does
 */
export async function inWritableSlice<Result>(
  context: QueueContext,
  guestOffset: GuestOffset,
  section: SliceSection<Result>,
): Promise<Result> {
  const { l2Cache, geometry } = context.metadata;
  const entry = geometry.entryInSlice(guestOffset);
  for (;;) {
    const slot = await acquireWritableSlice(context, guestOffset);
    let announced: number | undefined;
    l2Cache.lockExclusive(slot);
    try {
      const result = section(slot, entry);
      if (result !== undefined) return result;
      announced = l2Cache.waiting.announce(slot);
    } finally {
      l2Cache.unlockExclusive(slot);
      if (announced === undefined) l2Cache.unpin(slot);
    }
    context.counters.add(Counter.claimWaits);
    const claimEnds = l2Cache.waiting.wait(slot, announced);
    l2Cache.unpin(slot);
    await claimEnds;
  }
}

/**
 * Runs a section if the slice is cached, of a table that belongs to this image alone; neither waits nor
 * allocates.
 *
 * @returns undefined if it was not run, or gave that
 */
export function inCachedSlice<Result>(
  { metadata }: QueueContext,
  guestOffset: GuestOffset,
  section: SliceSection<Result>,
): Result | undefined {
  const { geometry, l2Cache } = metadata;
  if (!metadata.ownsTable(Math.floor(guestOffset / geometry.tableReach))) return undefined;
  const key = metadata.sliceKey(guestOffset);
  const slot = l2Cache.find(key);
  if (slot < 0) return undefined;
  l2Cache.lockExclusive(slot);
  try {
    if (!l2Cache.holds(slot, key)) return undefined;
    return section(slot, geometry.entryInSlice(guestOffset));
  } finally {
    l2Cache.unlockExclusive(slot);
  }
}

/** Claims entries, none of which is claimed, from within a section. */
export function beginClaim({ metadata, line }: QueueContext, claim: Claim): void {
  assert(claim.holder === unclaimed, 'a claim begins that has not ended');
  metadata.claims.add(claim.slot, claim.entry, claim.count, line);
  metadata.l2Cache.pin(claim.slot);
  claim.holder = line;
}

/**
 * Ends a claim, and wakes who waits for it.
 *
 * @param link changes the claimed entries, under the slice's word; left out, they stay as they are
 */
export function endClaim({ metadata, line }: QueueContext, claim: Claim, link?: () => void): void {
  const { l2Cache, claims } = metadata;
  const { slot, entry, count } = claim;
  assert(claim.holder === line, 'a claim is ended by who does not hold it');
  l2Cache.lockExclusive(slot);
  try {
    // Nobody sees it before the word is given back.
    claims.remove(slot, entry, count);
    claim.holder = unclaimed;
    if (link !== undefined) {
      l2Cache.markDirty(slot);
      metadata.flushOrder.noteEntries();
      link();
    }
  } finally {
    l2Cache.unlockExclusive(slot);
    // One that was found not to be claimed has no pin to undo.
    if (claim.holder === unclaimed) {
      l2Cache.waiting.wake(slot);
      l2Cache.unpin(slot);
    }
  }
}

/** Makes the L2 table that maps a guest offset in bytes, unless this image has one of its own. */
export async function prepareTable(context: QueueContext, guestOffset: GuestOffset): Promise<void> {
  context.metadata.l2Cache.unpin(await acquireWritableSlice(context, guestOffset));
}

/** The slice, pinned; new tables come from the queue's arena, replaced ones go into limbo. */
function acquireWritableSlice(context: QueueContext, guestOffset: GuestOffset): Promise<number> {
  const { metadata, arena } = context;
  return metadata.acquireWritableSlice(guestOffset, arena, (hostOffset) => {
    const cluster = metadata.geometry.clusterAt(hostOffset);
    intoLimbo(context, [{ cluster, count: 1 }], false);
  });
}
