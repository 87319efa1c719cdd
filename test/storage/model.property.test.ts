/** Random operations on every backend against a plain array of bytes; a failure prints its seed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { StorageFile } from '../../src/storage/storage.js';
import { backends } from './backends.js';

const span = 196_608;

/** Offsets and lengths that like the edges of sectors and pages. */
const place = fc.oneof(
  fc.integer({ min: 0, max: span }),
  fc.integer({ min: 0, max: span / 512 - 1 }).map((sector) => sector * 512),
  fc.integer({ min: 0, max: span / 4096 - 1 }).map((page) => page * 4096),
);
const extent = fc.oneof(
  fc.integer({ min: 1, max: 50_000 }),
  fc.constantFrom(1, 511, 512, 513, 4096, 8192, 65_536),
);
const byte = fc.integer({ min: 1, max: 255 });

type Change =
  | { kind: 'write' | 'writeVector'; offset: number; length: number; value: number }
  | { kind: 'zero'; offset: number; length: number; unmap: boolean }
  | { kind: 'discard' | 'allocate' | 'read'; offset: number; length: number }
  | { kind: 'truncate'; offset: number };

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('write' as const, 'writeVector' as const),
    offset: place,
    length: extent,
    value: byte,
  }),
  fc.record({
    kind: fc.constant('zero' as const),
    offset: place,
    length: extent,
    unmap: fc.boolean(),
  }),
  fc.record({
    kind: fc.constantFrom('discard' as const, 'allocate' as const, 'read' as const),
    offset: place,
    length: extent,
  }),
  fc.record({ kind: fc.constant('truncate' as const), offset: place }),
);

/** The model: a file's bytes, far beyond its end. */
class Model {
  readonly bytes = new Uint8Array(span * 2);
  size = 0;

  fill(value: number, offset: number, end: number): void {
    this.bytes.fill(value, offset, end);
    this.size = Math.max(this.size, end);
  }
}

async function apply(file: StorageFile, model: Model, step: Change): Promise<void> {
  if (step.kind === 'truncate') {
    await file.truncate(step.offset);
    model.bytes.fill(0, step.offset);
    model.size = step.offset;
    return;
  }
  const { offset, length } = step;
  const end = offset + length;
  switch (step.kind) {
    case 'write':
      await file.write(new Uint8Array(length).fill(step.value), offset);
      model.fill(step.value, offset, end);
      break;
    case 'writeVector': {
      const buffer = new Uint8Array(length).fill(step.value);
      const cut = length >> 1;
      await file.writeVector([buffer.subarray(0, cut), buffer.subarray(cut)], offset);
      model.fill(step.value, offset, end);
      break;
    }
    case 'zero':
      await file.writeZeroes(offset, length, step.unmap);
      model.fill(0, offset, end);
      break;
    case 'discard':
      if (await file.discard(offset, length)) model.bytes.fill(0, offset, end);
      break;
    case 'allocate':
      await file.allocate(offset, length, 'falloc');
      model.size = Math.max(model.size, end);
      break;
    default: {
      const buffer = new Uint8Array(length).fill(0xee);
      await file.read(buffer, offset);
      assert.ok(Buffer.compare(buffer, model.bytes.subarray(offset, end)) === 0);
    }
  }
}

async function checkWhole(file: StorageFile, model: Model): Promise<void> {
  assert.equal(await file.size(), model.size);
  const buffer = new Uint8Array(model.bytes.length).fill(0xee);
  await file.read(buffer, 0);
  assert.ok(Buffer.compare(buffer, model.bytes) === 0, 'the file differs from the model');
  for (let offset = 0; offset < buffer.length;) {
    const { data, length } = await file.status(offset, buffer.length - offset);
    if (!data) {
      assert.ok(model.bytes.subarray(offset, offset + length).every((value) => value === 0));
    }
    offset += length;
  }
}

for (const backend of backends) {
  test(`${backend.name} behaves as an array of bytes`, async (t) => {
    let file: StorageFile;
    try {
      file = await backend.create(t);
    } catch (error) {
      t.skip(String(error));
      return;
    }
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 25 }), async (steps) => {
        const model = new Model();
        await file.truncate(0);
        for (const step of steps) await apply(file, model, step);
        await checkWhole(file, model);
      }),
      { numRuns: 25 },
    );
  });

  test(`${backend.name}: writes side by side to separate ranges all last`, async (t) => {
    let file: StorageFile;
    try {
      file = await backend.create(t);
    } catch (error) {
      t.skip(String(error));
      return;
    }
    const lengths = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(lengths, async (parts) => {
        await file.truncate(0);
        const queues = [file, file.openQueue()];
        const expected = Buffer.concat(parts.map((part, at) => Buffer.alloc(part, (at % 255) + 1)));
        let offset = 0;
        const writes = parts.map((part, at) => {
          const write = queues[at % 2].write(new Uint8Array(part).fill((at % 255) + 1), offset);
          offset += part;
          return write;
        });
        await Promise.all(writes);
        await queues[1].close();
        const buffer = Buffer.alloc(expected.length);
        await file.read(buffer, 0);
        assert.ok(buffer.equals(expected));
        assert.equal(await file.size(), expected.length);
      }),
      { numRuns: 25 },
    );
  });
}
