/** Heads and payloads come out as they were sent, however a socket cuts them, and whoever pauses meanwhile. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FrameReader } from '../../src/nbd/frame-reader.js';

interface Part {
  readonly kind: 'head' | 'payload' | 'skip';
  readonly length: number;
}

const parts = fc.array(
  fc.record({
    kind: fc.constantFrom('head' as const, 'payload' as const, 'skip' as const),
    length: fc.oneof(fc.nat(100), fc.nat(60_000)),
  }),
  { minLength: 1, maxLength: 30 },
);

function contentOf(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 7)) & 0xff));
}

/** Expects one part after the other, and collects what comes; the bytes of those that are skipped are left out. */
function collect(
  reader: FrameReader,
  wanted: readonly Part[],
  pauses: readonly boolean[],
): Buffer[] {
  const taken: Buffer[] = [];
  const next = (index: number): void => {
    const part = wanted[index] as Part | undefined;
    if (part === undefined) return;
    const go = (bytes: Buffer): void => {
      taken.push(bytes);
      if (pauses[index % pauses.length]) reader.pause();
      next(index + 1);
    };
    if (part.kind === 'head') {
      reader.expectHead(part.length, (head) => {
        go(Buffer.from(head));
      });
    } else if (part.kind === 'payload') {
      const into = new Uint8Array(part.length);
      reader.expectPayload(into, () => {
        go(Buffer.from(into));
      });
    } else {
      reader.skip(part.length, () => {
        go(Buffer.alloc(0));
      });
    }
  };
  next(0);
  return taken;
}

test('what is sent comes out, part by part', () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 20 });
  const pauses = fc.array(fc.boolean(), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(parts, cuts, pauses, (wanted, sizes, paused) => {
      const total = wanted.reduce((sum, { length }) => sum + length, 0);
      const sent = contentOf(total);
      const reader = new FrameReader(assert.ifError);
      const taken = collect(reader, wanted, paused);
      // What has no bytes is there before any has come.
      reader.resume();
      let at = 0;
      for (let turn = 0; at < total || reader.isPaused; turn++) {
        assert.ok(turn <= total, 'it goes on');
        // As a socket does: it is not read while the reader is paused, but for what was on its way.
        while (reader.isPaused) reader.resume();
        const into = reader.wanted();
        assert.ok(into.length > 0);
        const count = Math.min(into.length, sizes[turn % sizes.length], total - at);
        into.set(sent.subarray(at, at + count));
        at += count;
        reader.took(count);
      }
      let offset = 0;
      wanted.forEach(({ kind, length }, index) => {
        const expected = kind === 'skip' ? Buffer.alloc(0) : sent.subarray(offset, offset + length);
        assert.equal(Buffer.compare(taken[index], expected), 0, `part ${index}`);
        offset += length;
      });
      assert.equal(taken.length, wanted.length);
    }),
    { numRuns: 300 },
  );
});

test('a payload lands where it belongs without a detour', () => {
  const reader = new FrameReader(assert.ifError);
  const into = new Uint8Array(1000);
  let isDone = false;
  reader.expectPayload(into, () => {
    isDone = true;
    reader.expectHead(1, () => undefined);
  });
  const wanted = reader.wanted();
  assert.equal(wanted.buffer, into.buffer);
  assert.equal(wanted.length, 1000);
  reader.took(400);
  assert.equal(reader.wanted().byteOffset, 400);
  reader.took(600);
  assert.ok(isDone);
});

test('what whoever takes something throws is told, and nothing more is taken', () => {
  const told: string[] = [];
  const reader = new FrameReader(({ message }) => told.push(message));
  reader.expectHead(4, () => {
    throw new Error('not this');
  });
  reader.wanted();
  assert.equal(reader.took(6), false);
  assert.deepEqual(told, ['not this']);
});
