/** What can only be a mistake of the engine's own is met before it does harm to an image. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  after,
  asClusterIndex,
  asGuestOffset,
  asHostOffset,
} from '../../../src/format/qcow2/layout/geometry.js';
import { CompressedReader } from '../../../src/format/qcow2/requests/compressed-reader.js';
import { ImageCodec } from '../../../src/format/qcow2/requests/image-codec.js';
import type { QueueContext } from '../../../src/format/qcow2/requests/queue-context.js';
import { Reader } from '../../../src/format/qcow2/requests/reader.js';
import {
  beginClaim,
  endClaim,
  inWritableSlice,
  unclaimed,
} from '../../../src/format/qcow2/requests/slice-section.js';
import { Writer } from '../../../src/format/qcow2/requests/writer.js';
import { openContext } from './requests/open-context.js';

const clusterBytes = 65_536;
const start = asGuestOffset(0);

function open(): Promise<QueueContext> {
  return openContext(64 * clusterBytes);
}

function readerOf(context: QueueContext): Reader {
  const { file, metadata } = context;
  return new Reader(
    context,
    new CompressedReader(
      file,
      clusterBytes,
      metadata.control,
      new ImageCodec({ compressionType: 'zlib' }),
    ),
  );
}

test('a claim is held by one queue, which ends it once', async () => {
  const context = await open();
  const claim = await inWritableSlice(context, start, (slot, entry) => {
    const made = { slot, entry, count: 1, holder: unclaimed };
    beginClaim(context, made);
    assert.throws(() => {
      beginClaim(context, made);
    }, /begins that has not ended/);
    return made;
  });
  let linked = 0;
  const link = (): void => {
    linked += 1;
  };
  assert.throws(() => {
    endClaim({ ...context, line: context.line + 1 }, claim, link);
  }, /who does not hold it/);
  endClaim(context, claim, link);
  assert.throws(() => {
    endClaim(context, claim, link);
  }, /who does not hold it/);
  // Its mark has gone although its holder has not heard.
  claim.holder = context.line;
  assert.throws(() => {
    endClaim(context, claim, link);
  }, /that nobody holds/);
  assert.equal(linked, 1);
});

test('a request that gets no further ends', async (t) => {
  const context = await open();
  const { geometry, planner } = context.metadata;
  const reader = readerOf(context);
  const writer = new Writer(context, reader);
  await writer.write(new Uint8Array(clusterBytes), asGuestOffset(clusterBytes));
  const within = t.mock.method(geometry, 'within', () => clusterBytes);
  await assert.rejects(writer.write(new Uint8Array(512), start), /writes nothing/);
  within.mock.restore();
  const plan = planner.plan.bind(planner);
  t.mock.method(planner, 'plan', (...of: Parameters<typeof plan>) => {
    plan(...of);
    of[4].length = 0;
  });
  await assert.rejects(
    reader.read(new Uint8Array(512), asGuestOffset(clusterBytes)),
    /reads nothing/,
  );
});

test('guest data are not written over the header', async () => {
  const { payload } = await open();
  const bytes = new Uint8Array(512);
  const wrong = [0, 512, clusterBytes - 512].map(asHostOffset);
  const completion = { complete: () => assert.fail('it has begun') };
  for (const place of wrong) {
    const refused = /written over the header/;
    assert.throws(() => payload.write(bytes, start, place), refused);
    assert.throws(() => payload.writeVector([bytes, bytes], start, place), refused);
    assert.throws(() => {
      payload.submitWrite(bytes, place, completion, start);
    }, refused);
  }
  await payload.write(bytes, start, asHostOffset(20 * clusterBytes));
});

test('entries point at the begin of clusters, within their tables', async () => {
  const { metadata } = await open();
  const { entries, l1, geometry } = metadata;
  const view = new DataView(new ArrayBuffer(8));
  const place = geometry.startOf(asClusterIndex(9));
  assert.throws(() => {
    entries.setNormal(view, 0, after(place, 512));
  }, /into a cluster/);
  assert.equal(view.getBigUint64(0), 0n);
  assert.throws(() => {
    l1.set(l1.length, place, true);
  }, /beyond its table/);
  assert.throws(() => {
    l1.set(0, after(place, 8), true);
  }, /within a sector/);
});

test('a cluster that is counted is not handed out', async () => {
  const { metadata } = await open();
  const { refcounts, allocator, geometry } = metadata;
  const run = await allocator.reserve(1);
  await assert.rejects(refcounts.raiseFree(run.cluster, 1), /handed out twice/);
  assert.equal(await refcounts.get(run.cluster), 1);
  const last = asClusterIndex(geometry.refcountsPerSlice - 1);
  await assert.rejects(refcounts.raiseFree(last, 2), /counted in another/);
  await assert.rejects(refcounts.lower(run.cluster, 0), /no clusters/);
});

test('a cluster that waits in limbo is not handed out: its count is too low', async () => {
  const { metadata } = await open();
  const { limbo, allocator } = metadata;
  const next = allocator.end;
  const { epoch, round } = metadata.closeEpoch();
  limbo.add({ cluster: after(next, 1), count: 1, epoch, round, punch: false });
  await assert.rejects(metadata.reserve(4), {
    code: 'ERR_COWHERD_CORRUPT',
    message: /clusters that wait to be freed are counted as free/,
  });
});
