/** Bitmaps of a disk that queues of several threads write to say what a model says, whatever is done to them. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Image, RequestTarget } from '../../../src/image/api/image.js';
import type { CreateOptions } from '../../../src/image/api/options.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { attachImage } from '../../../src/image/threads/attach.js';
import { openPool } from '../../../src/image/threads/pool.js';
import { bitmapsOf } from '../../support/stored-bitmaps.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { Random } from '../../stress/random.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 15);
const mebi = 1 << 20;

const layouts: readonly CreateOptions[] = [
  {},
  { clusterSize: 512 },
  { clusterSize: 16_384, extendedL2: true },
  { clusterSize: 4096, refcountBits: 1 },
  { clusterSize: 4096, lazyRefcounts: true },
];

/** The granules of a bitmap that have changed, as they should be. */
class Model {
  readonly granularity: number;
  readonly dirty = new Set<number>();
  isEnabled = true;

  constructor(granularity: number) {
    this.granularity = granularity;
  }

  note(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / this.granularity);
    for (let at = Math.floor(offset / this.granularity); at < end; at++) this.dirty.add(at);
  }

  merge({ granularity, dirty }: Model, size: number): void {
    for (const granule of dirty) {
      const offset = granule * granularity;
      this.note(offset, Math.min(granularity, size - offset));
    }
  }

  cut(size: number): void {
    for (const granule of this.dirty) {
      if (granule * this.granularity >= size) this.dirty.delete(granule);
    }
  }

  get sorted(): readonly number[] {
    return [...this.dirty].sort((one, other) => one - other);
  }
}

async function granulesOf(image: Image, name: string, granularity: number): Promise<number[]> {
  const granules: number[] = [];
  for await (const { offset, length } of image.bitmaps.dirtyRanges(name)) {
    assert.equal(offset % granularity, 0);
    for (let at = offset; at < offset + length; at += granularity) granules.push(at / granularity);
  }
  return granules;
}

const names = ['a', 'b', 'c'];
const actions = [
  ...(['write', 'write', 'write', 'zero', 'discard', 'compress', 'add', 'add', 'remove'] as const),
  ...(['clear', 'enable', 'disable', 'merge', 'merge', 'resize', 'reopen'] as const),
];
const step = fc.record({
  kind: fc.constantFrom(...actions),
  name: fc.constantFrom(...names),
  other: fc.constantFrom(...names),
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  length: fc.integer({ min: 1, max: 300_000 }),
  granularityBits: fc.integer({ min: 9, max: 17 }),
});

test('a model of bitmaps', { timeout: 600_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...layouts),
      fc.array(step, { minLength: 6, maxLength: 40 }),
      async (layout, steps) => {
        const file = path.join(await temporaryFolder(t), 'disk');
        await createImage(file, { format: 'qcow2', size: 2 * mebi, ...layout });
        let image = await openImage(file);
        let attached = await attachImage(image.handle());
        const models = new Map<string, Model>();
        const note = (offset: number, length: number): void => {
          for (const model of models.values()) if (model.isEnabled) model.note(offset, length);
        };
        for (const [index, { kind, name, other, at, length, granularityBits }] of steps.entries()) {
          const target: RequestTarget = index % 2 === 0 ? image : attached;
          const { bitmaps } = index % 3 === 0 ? attached : image;
          const { size } = image;
          const cluster = image.clusterSize!;
          const offset = Math.floor(at * (size - length));
          const model = models.get(name);
          const source = models.get(other);
          if (kind === 'write') {
            await target.write(Buffer.alloc(length, index + 1), offset);
            note(offset, length);
          } else if (kind === 'zero') {
            await target.writeZeroes(offset, length, { unmap: index % 4 === 0 });
            note(offset, length);
          } else if (kind === 'discard') {
            await target.discard(offset, length);
            note(offset, length);
          } else if (kind === 'compress') {
            const start = Math.floor(offset / cluster) * cluster;
            await target.writeCompressed(
              Buffer.alloc(Math.min(cluster, size - start), index),
              start,
            );
            note(start, Math.min(cluster, size - start));
          } else if (kind === 'resize') {
            const sectors = 1000 + Math.floor(at * 6000);
            await image.resize(sectors * 512, { shrink: true });
            for (const each of models.values()) each.cut(sectors * 512);
          } else if (kind === 'reopen') {
            await attached.close();
            await image.close();
            image = await openImage(file);
            attached = await attachImage(image.handle());
          } else if (kind === 'add') {
            if (model !== undefined) continue;
            const added = new Model(2 ** granularityBits);
            added.isEnabled = index % 5 !== 0;
            const { granularity, isEnabled } = added;
            await bitmaps.add(name, { granularity, disabled: !isEnabled });
            models.set(name, added);
          } else if (model === undefined) {
            await assert.rejects(bitmaps.clear(name), { code: 'ERR_COWHERD_NOT_FOUND' });
          } else if (kind === 'merge') {
            if (source === undefined) continue;
            await bitmaps.merge(name, other);
            model.merge(source, size);
          } else {
            await bitmaps[kind](name);
            if (kind === 'remove') models.delete(name);
            else if (kind === 'clear') model.dirty.clear();
            else model.isEnabled = kind === 'enable';
          }
          const now = models.get(name);
          if (now === undefined) continue;
          const reader = index % 2 === 0 ? attached : image;
          assert.deepEqual(await granulesOf(reader, name, now.granularity), now.sorted, kind);
        }
        await image.close();
        await attached.close();
        await runOk('qemu-img', ['check', '-q', file]);
        const stored = bitmapsOf(await readFile(file)).bitmaps;
        assert.deepEqual(
          stored.map(({ name, auto, inUse, dirty }) => ({ name, auto, inUse, dirty })),
          stored.map(({ name }) => ({
            name,
            auto: models.get(name)!.isEnabled,
            inUse: false,
            dirty: models.get(name)!.sorted,
          })),
        );
        assert.equal(stored.length, models.size);
      },
    ),
    { seed, numRuns: runs, endOnFailure: true },
  );
});

test('threads that write at once lose no bit', { timeout: 120_000 }, async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const file = path.join(await temporaryFolder(t), 'disk');
  await createImage(file, { format: 'qcow2', size: 64 * mebi });
  const first = await openImage(file);
  await first.bitmaps.add('fine', { granularity: 512 });
  await first.bitmaps.add('coarse', { granularity: 1 << 20 });
  await first.close();
  const pool = await openPool(file, { queues: 4, threads: 4 });
  const models = [new Model(512), new Model(1 << 20)];
  const random = new Random(seed);
  const sector = Buffer.alloc(512, 7);
  for (let round = 0; round < 40; round++) {
    // Neighbours, whose bits lie in one word.
    const base = random.below(120_000) * 512;
    const writes = Array.from({ length: 64 }, () => {
      const offset = base + random.below(80) * 512;
      for (const model of models) model.note(offset, 512);
      return pool.write(sector, offset);
    });
    await Promise.all(writes);
  }
  await pool.close();
  await runOk('qemu-img', ['check', '-q', file]);
  const { bitmaps } = bitmapsOf(await readFile(file));
  assert.deepEqual(
    bitmaps.map(({ dirty }) => dirty),
    models.map(({ sorted }) => sorted),
  );
});
