/** Sections over slices and claims on their entries, also where one of them fails. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type GuestOffset, asGuestOffset } from '../../../../src/format/qcow2/layout/geometry.js';
import {
  type Claim,
  beginClaim,
  endClaim,
  inCachedSlice,
  inWritableSlice,
  unclaimed,
} from '../../../../src/format/qcow2/requests/slice-section.js';
import type { QueueContext } from '../../../../src/format/qcow2/requests/queue-context.js';
import { openContext } from './open-context.js';

const clusterBytes = 65_536;

function startOf(cluster: number): GuestOffset {
  return asGuestOffset(cluster * clusterBytes);
}

/** Claims guest clusters. */
function claimOf(context: QueueContext, cluster: number, count: number): Promise<Claim> {
  return inWritableSlice(context, startOf(cluster), (slot, entry) => {
    if (context.metadata.claims.has(slot, entry)) return undefined;
    const claim = { slot, entry, count, holder: unclaimed };
    beginClaim(context, claim);
    return claim;
  });
}

/** Fails if the slice's word is held, or its slot pinned. */
function assertFree({ metadata }: QueueContext, slot: number): void {
  metadata.l2Cache.lockExclusive(slot);
  metadata.l2Cache.unlockExclusive(slot);
  assert.throws(() => {
    metadata.l2Cache.unpin(slot);
  }, /nobody has pinned/);
  metadata.l2Cache.pin(slot);
}

test('a section waits for the claim of its first entry, and for no other', async () => {
  const context = await openContext(64 * clusterBytes);
  const claim = await claimOf(context, 4, 2);
  assert.equal(claim.entry, 4);
  const looks: string[] = [];
  const looking = inWritableSlice(context, startOf(5), (slot, entry) => {
    looks.push(`${entry}`);
    return context.metadata.claims.has(slot, entry) ? undefined : 'free';
  });
  await claimOf(context, 6, 1).then((other) => {
    endClaim(context, other);
  });
  // Any claim's end wakes, and whoever wakes looks again.
  assert.ok(!looks.includes('6'));
  endClaim(context, claim);
  assert.equal(await looking, 'free');
  assert.ok(looks.length >= 2);
  assertFree(context, claim.slot);
});

test('a section that fails leaves the slice to the others', async () => {
  const context = await openContext(64 * clusterBytes);
  const failure = new Error('no');
  let slot = -1;
  const section = (at: number): undefined => {
    slot = at;
    throw failure;
  };
  await assert.rejects(inWritableSlice(context, startOf(0), section), failure);
  assertFree(context, slot);
  assert.throws(() => {
    inCachedSlice(context, startOf(0), section);
  }, failure);
  assertFree(context, slot);
});

test('a claim ends also where linking fails, and what waits for it goes on', async () => {
  const context = await openContext(64 * clusterBytes);
  const claim = await claimOf(context, 0, 3);
  const next = claimOf(context, 2, 1);
  const failure = new Error('no');
  assert.throws(() => {
    endClaim(context, claim, () => {
      throw failure;
    });
  }, failure);
  endClaim(context, await next);
  assertFree(context, claim.slot);
  assert.equal(
    inCachedSlice(context, startOf(0), (slot) => context.metadata.claims.has(slot, 0)),
    false,
  );
});

test('only a cached slice of a table of this image is looked at without waiting', async () => {
  const context = await openContext(64 * clusterBytes);
  const look = (): number | undefined =>
    inCachedSlice(context, startOf(0), (_slot, entry) => entry);
  assert.equal(look(), undefined);
  const claim = await claimOf(context, 0, 1);
  assert.equal(look(), 0);
  endClaim(context, claim);
});
