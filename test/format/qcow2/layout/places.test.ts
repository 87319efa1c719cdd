/**
 * Places on the disk, places in the file and clusters of the file are numbers that the compiler does not
 * let be taken for one another. What must not compile says so in its line; if it did, the build would fail.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ClusterIndex,
  Geometry,
  type GuestOffset,
  type HostOffset,
  after,
  asClusterIndex,
  asGuestOffset,
  asHostOffset,
} from '../../../../src/format/qcow2/layout/geometry.js';
import type { L2EntryView } from '../../../../src/format/qcow2/layout/l2-entry.js';
import type { Qcow2Metadata } from '../../../../src/format/qcow2/metadata/metadata.js';
import type { Payload } from '../../../../src/format/encryption/payload.js';

/** Compiled, and never called. */
export function mustNotCompile(
  guest: GuestOffset,
  host: HostOffset,
  cluster: ClusterIndex,
  {
    metadata,
    payload,
  }: { readonly metadata: Qcow2Metadata; readonly payload: Payload<GuestOffset, HostOffset> },
): void {
  const { geometry, allocator, refcounts, overlap, l1 } = metadata;
  const view = new DataView(new ArrayBuffer(16));
  const entries: L2EntryView = metadata.entries;
  const bytes = new Uint8Array(512);
  // @ts-expect-error a place in the file is none on the disk
  metadata.sliceKey(host);
  // @ts-expect-error a place on the disk is none in the file
  entries.setNormal(view, 0, guest);
  // @ts-expect-error a cluster is no place in bytes
  entries.setCompressed(view, 0, cluster, 512);
  // @ts-expect-error tables hold places in the file
  l1.set(0, guest, true);
  // @ts-expect-error counts go by clusters, not by bytes
  void refcounts.get(host);
  // @ts-expect-error what is freed are clusters
  void allocator.lower(host, 1);
  // @ts-expect-error metadata lie in the file
  overlap.check(guest, 512, 'a write');
  // @ts-expect-error the places are the other way round
  void payload.read(bytes, host, guest);
  // @ts-expect-error no number is a place until it is taken for one
  void payload.write(bytes, 0, 0);
  // @ts-expect-error a cluster begins where its number is multiplied
  geometry.startOf(host);
  // @ts-expect-error nor does arithmetic keep a number a place
  geometry.clusterAt(host + 1);
  // @ts-expect-error what lies after a guest offset is one too
  geometry.clusterAt(after(guest, 512));
}

test('places are plain numbers at run time, and are converted without loss', () => {
  const top = 2 ** 53 - 2 ** 21;
  fc.assert(
    fc.property(
      fc.integer({ min: 9, max: 21 }),
      fc.integer({ min: 0, max: top }),
      (clusterBits, bytes) => {
        const geometry = new Geometry({ clusterBits, refcountOrder: 4, extendedL2: false });
        const place = asHostOffset(bytes);
        assert.equal(place, bytes);
        const start = geometry.startOf(geometry.clusterAt(place));
        assert.equal(start + geometry.within(place), bytes);
        assert.equal(geometry.clusterStart(place), start);
        assert.equal(
          geometry.clusterAt(after(start, geometry.clusterSize - 1)),
          start / 2 ** clusterBits,
        );
      },
    ),
  );
  assert.deepEqual([asGuestOffset(5), asClusterIndex(7)], [5, 7]);
  const small = new Geometry({ clusterBits: 9, refcountOrder: 4, extendedL2: false });
  assert.equal(small.firstCounted(3), 3 * small.refcountsPerBlock);
});
