/** The edges of a write: which are read, which are known to be zeroes, and what a failure leaves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { asGuestOffset, asHostOffset } from '../../../../src/format/qcow2/layout/geometry.js';
import {
  CopyOnWrite,
  type Edges,
  type Placement,
} from '../../../../src/format/qcow2/requests/copy-on-write.js';
import type { Reader } from '../../../../src/format/qcow2/requests/reader.js';
import { openContext } from './open-context.js';

const clusterBytes = 65_536;
const size = 64 * clusterBytes;

/** A reader of which every read ends as its test says. */
function readerOf(
  read: (buffer: Uint8Array, offset: number) => Promise<void>,
): Pick<Reader, 'read'> {
  return { read };
}

function placed(edges: Edges, knownZero: boolean): Placement {
  return {
    guestOffset: asGuestOffset(clusterBytes),
    hostOffset: asHostOffset(8 * clusterBytes),
    knownZero,
    edges,
  };
}

const unknown: Edges = {
  head: { length: 100, isZero: false },
  tail: { length: 200, isZero: false },
};

test('a write that fails at one edge ends after the read of the other', async () => {
  const context = await openContext(size);
  const failure = new Error('no');
  let letGo = (): void => undefined;
  const held = new Promise<void>((resolve) => (letGo = resolve));
  const reader = readerOf((buffer) => (buffer.length === 100 ? Promise.reject(failure) : held));
  const copies = new CopyOnWrite(context, reader);
  let hasEnded = false;
  const bytes = new Uint8Array(512);
  const work = copies
    .write(placed(unknown, false), asGuestOffset(clusterBytes + 100), bytes.length, () => bytes)
    .finally(() => (hasEnded = true));
  const rejected = assert.rejects(work, failure);
  for (let count = 0; count < 5; count++) await turn();
  assert.equal(hasEnded, false);
  letGo();
  await rejected;
});

for (const knownZero of [true, false]) {
  test(`zero edges are never read, and written unless the cluster is zero: ${String(knownZero)}`, async () => {
    const context = await openContext(size);
    const reads: number[] = [];
    const reader = readerOf((buffer, offset) => {
      reads.push(offset);
      buffer.fill(7);
      return Promise.resolve();
    });
    const written: [length: number, hostOffset: number][] = [];
    const note = (buffers: readonly Uint8Array[], hostOffset: number): Promise<void> => {
      written.push([buffers.reduce((sum, { length }) => sum + length, 0), hostOffset]);
      return Promise.resolve();
    };
    context.file.writeVector = note;
    context.file.write = (buffer, hostOffset) => note([buffer], hostOffset);
    const edges = { head: { length: 100, isZero: true }, tail: { length: 200, isZero: false } };
    const bytes = new Uint8Array(512);
    const copies = new CopyOnWrite(context, reader);
    await copies.write(
      placed(edges, knownZero),
      asGuestOffset(clusterBytes + 100),
      bytes.length,
      () => bytes,
    );
    assert.deepEqual(reads, [clusterBytes + 612]);
    const from = 8 * clusterBytes;
    assert.deepEqual(written, [knownZero ? [712, from + 100] : [812, from]]);
  });
}
