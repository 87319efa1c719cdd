/** The rings of this thread: one an engine, shared by all files that use it, so that one system
 * call serves them all. */
import assert from 'node:assert/strict';
import { addon } from './addon.js';
import { Ring, type EngineName } from './ring.js';

interface Shared {
  readonly ring: Ring;
  users: number;
}

const rings = new Map<EngineName, Shared>();

/** What the system calls "not there" (ENOSYS). */
const notImplemented = -38;

/**
 * This thread's ring for an engine; give it back with `releaseRing`.
 * @returns the ring, or the negated errno with which the system refused one.
 *   `COWHERD_NO_IO_URING=1` makes io_uring unavailable.
 */
export function acquireRing(engine: EngineName): Ring | number {
  const forbidden = process.env['COWHERD_NO_IO_URING'] === '1';
  if (addon === undefined || (forbidden && engine === 'io_uring')) return notImplemented;
  const name = forbidden ? 'threads' : engine;
  let shared = rings.get(name);
  if (shared === undefined) {
    const ring = Ring.create(addon, name);
    if (typeof ring === 'number') return ring;
    shared = { ring, users: 0 };
    rings.set(name, shared);
  }
  shared.users += 1;
  return shared.ring;
}

/** Ends one use of a ring; the last closes it. */
export function releaseRing(ring: Ring): void {
  for (const [name, shared] of rings) {
    if (shared.ring !== ring) continue;
    assert(shared.users > 0, 'a ring is given back that has no users');
    shared.users -= 1;
    if (shared.users === 0) {
      rings.delete(name);
      ring.close();
    }
  }
}
