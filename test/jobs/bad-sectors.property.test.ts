/**
 * Sectors that cannot be read: salvaging gives up those and no more, and a comparison ends with what
 * comes first in the disk, be it a difference or a failure.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CowherdError } from '../../src/errors.js';
import type { Image, RequestTarget } from '../../src/image/api/image.js';
import type { Extent } from '../../src/image/api/reports.js';
import { compareImages } from '../../src/jobs/compare.js';
import { Copier } from '../../src/jobs/copier.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const numRuns = Number(process.env['COWHERD_TEST_RUNS'] ?? 60);

const sector = 512;
const sectors = 12_000;
const size = sectors * sector;
const sectorSets = fc.uniqueArray(fc.integer({ min: 0, max: sectors - 1 }), { maxLength: 6 });
/** Stretches of bad sectors. */
const badSets = fc
  .array(fc.record({ at: fc.nat(sectors - 1), length: fc.integer({ min: 1, max: 20 }) }), {
    maxLength: 4,
  })
  .map((stretches) => {
    const bad = new Set<number>();
    for (const { at, length } of stretches) {
      for (let next = at; next < Math.min(sectors, at + length); next++) bad.add(next);
    }
    return bad;
  });

/** A disk that holds one byte, another one in some sectors, and cannot be read in others. */
class Disk {
  readonly size = size;
  readonly filename = 'disk';

  constructor(
    private readonly changed: ReadonlySet<number>,
    private readonly bad: ReadonlySet<number>,
  ) {}

  // eslint-disable-next-line @typescript-eslint/require-await
  async *map(): AsyncGenerator<Extent> {
    const stored = { depth: 0, present: true, zero: false, data: true, compressed: false };
    yield { start: 0, length: size, ...stored };
  }

  async read(buffer: Uint8Array, offset: number): Promise<void> {
    await Promise.resolve();
    for (let at = 0; at < buffer.length; at += sector) {
      const index = Math.floor((offset + at) / sector);
      if (this.bad.has(index)) {
        const details = { filename: 'disk', offset, reason: 'Input/output error' };
        throw new CowherdError('ERR_COWHERD_IO', 'Could not read', details);
      }
      buffer.fill(this.changed.has(index) ? 2 : 1, at, at + sector);
    }
  }
}

test(`what cannot be read is lost by the sector, each with a warning (seed ${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(badSets, async (bad) => {
      const disk = new Disk(new Set(), bad);
      const copied = new Uint8Array(size);
      const warnings: string[] = [];
      const write = (data: Uint8Array, offset: number): Promise<void> => {
        copied.set(data, offset);
        return Promise.resolve();
      };
      await new Copier({
        source: { size, map: () => disk.map(), read: (data, at) => disk.read(data, at) },
        targets: [{ write } as RequestTarget],
        filler: undefined,
        outOfOrder: false,
        parallel: 3,
        granularity: 1,
        compress: false,
        sparseSize: 0,
        copyZeroes: true,
        zeroFrom: 0,
        leaveBacking: false,
        reserveAhead: false,
        salvage: true,
        rateLimit: undefined,
        onWarning: (message) => warnings.push(message),
        onProgress: undefined,
        signal: undefined,
      }).run();
      const lost = Array.from({ length: sectors }, (_, index) => index).filter(
        (index) => copied[index * sector] === 0,
      );
      assert.deepEqual(
        lost,
        [...bad].sort((a, b) => a - b),
      );
      assert.deepEqual(
        warnings.sort(),
        lost
          .map((index) => `error while reading offset ${index * sector}: Input/output error`)
          .sort(),
      );
    }),
    { seed, numRuns },
  );
});

test(`the first difference or failure of the disk is the one that is told (seed ${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(sectorSets, badSets, badSets, async (changed, badA, badB) => {
      const a = new Disk(new Set(), badA);
      const b = new Disk(new Set(changed), badB);
      const firstBad = Math.min(...badA, ...badB);
      const firstChanged = Math.min(...changed);
      const result = compareImages(a as unknown as Image, b as unknown as Image);
      if (firstBad <= firstChanged && firstBad !== Infinity) {
        await assert.rejects(result, { offset: firstBad * sector });
        return;
      }
      const { difference } = await result;
      assert.deepEqual(
        difference,
        firstChanged === Infinity ? undefined : { kind: 'content', offset: firstChanged * sector },
      );
    }),
    { seed, numRuns },
  );
});
