/** Planning, alone: entries in a buffer, runs out of it; and entries to and from their bits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type HostOffset,
  Geometry,
  asGuestOffset,
  asHostOffset,
} from '../../../../src/format/qcow2/layout/geometry.js';
import { ClusterKind, L2EntryView } from '../../../../src/format/qcow2/layout/l2-entry.js';
import { ReadPlanner, Run, RunKind } from '../../../../src/format/qcow2/layout/plan.js';

const cluster = 65536;

function standard(): {
  view: DataView;
  entries: L2EntryView;
  plan: (offset: number, length: number) => Run;
} {
  return planner(false);
}

/** Where a host cluster begins. */
function at(index: number): HostOffset {
  return asHostOffset(index * cluster);
}

function planner(extendedL2: boolean): ReturnType<typeof standard> {
  const geometry = new Geometry({ clusterBits: 16, refcountOrder: 4, extendedL2 });
  const entries = new L2EntryView(geometry, false);
  const view = new DataView(new ArrayBuffer(geometry.sliceSize));
  const reader = new ReadPlanner(geometry, entries);
  return {
    view,
    entries,
    plan: (offset, length) => {
      const run = new Run();
      reader.plan(view, 0, asGuestOffset(offset), length, run);
      return run;
    },
  };
}

test('contiguous clusters are one run, which ends where the host jumps', () => {
  const { view, entries, plan } = standard();
  entries.setNormal(view, 0, at(10));
  entries.setNormal(view, 8, at(11));
  entries.setNormal(view, 16, at(20));
  const run = plan(100, 10 * cluster);
  assert.equal(run.kind, RunKind.data);
  assert.equal(run.hostOffset, 10 * cluster + 100);
  assert.equal(run.length, 2 * cluster - 100);
  assert.equal(plan(2 * cluster, 4096).hostOffset, 20 * cluster);
});

test('zero clusters with and without a host cluster are runs of their own', () => {
  const { view, entries, plan } = standard();
  entries.setZero(view, 0, false);
  entries.setNormal(view, 8, at(5));
  entries.setZero(view, 8, true);
  assert.deepEqual(
    [plan(0, 9 * cluster).kind, plan(0, 9 * cluster).length],
    [RunKind.zero, cluster],
  );
  const kept = plan(cluster, cluster);
  assert.deepEqual([kept.kind, kept.hasHost, kept.hostOffset], [RunKind.zero, true, 5 * cluster]);
});

test('a run never leaves its slice', () => {
  const { plan } = standard();
  assert.equal(plan(511 * cluster + 5, 10 * cluster).length, cluster - 5);
});

test('a host offset off the cluster grid is corrupt', () => {
  const { view, plan } = standard();
  view.setUint32(4, 5 * cluster + 512);
  assert.equal(plan(0, 512).kind, RunKind.corrupt);
});

test('subclusters are planned one by one and joined where they continue', () => {
  const { view, entries, plan } = planner(true);
  const sub = cluster / 32;
  entries.setSubclusters(view, 0, at(7), 0b0110);
  entries.setZeroSubclusters(view, 0, 0b1000);
  assert.deepEqual([plan(0, cluster).kind, plan(0, cluster).length], [RunKind.unallocated, sub]);
  const data = plan(sub, cluster);
  assert.deepEqual(
    [data.kind, data.hostOffset, data.length],
    [RunKind.data, 7 * cluster + sub, 2 * sub],
  );
  assert.equal(plan(3 * sub, cluster).kind, RunKind.zero);
  assert.equal(plan(4 * sub, cluster).length, 28 * sub, 'the next cluster has no host cluster');
});

test('a subcluster both allocated and zero is corrupt', () => {
  const { view, entries, plan } = planner(true);
  entries.setSubclusters(view, 0, at(7), 1);
  view.setUint32(8, 1);
  assert.equal(plan(0, 512).kind, RunKind.corrupt);
});

test('compressed entries keep offset and sectors, for every cluster size', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 9, max: 21 }),
      fc.integer({ min: 0, max: 2 ** 40 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (clusterBits, hostOffset, fraction) => {
        const geometry = new Geometry({ clusterBits, refcountOrder: 4, extendedL2: false });
        const entries = new L2EntryView(geometry, false);
        const view = new DataView(new ArrayBuffer(8));
        const length = 1 + Math.floor(fraction * (geometry.clusterSize - 2));
        entries.setCompressed(view, 0, asHostOffset(hostOffset), length);
        assert.equal(entries.kind(view, 0), ClusterKind.compressed);
        assert.equal(entries.isCopied(view, 0), false);
        assert.equal(entries.compressedOffset(view, 0), hostOffset);
        const end = hostOffset + entries.compressedSize(view, 0);
        assert.equal(end, Math.ceil((hostOffset + length) / 512) * 512);
      },
    ),
  );
});
