/** The copier over a source whose reads end in any order and a target that notes what it is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type { RequestTarget } from '../../src/image/api/image.js';
import type { Source } from '../../src/jobs/concatenation.js';
import { Copier } from '../../src/jobs/copier.js';

const mib = 1024 * 1024;
const pieces = 40;

/** Data throughout; the earlier of the pieces under way take the longest. */
function source(): Source {
  const size = pieces * mib;
  return {
    size,
    // eslint-disable-next-line @typescript-eslint/require-await
    async *map() {
      const stored = { depth: 0, present: true, zero: false, data: true, compressed: false };
      yield { start: 0, length: size, ...stored };
    },
    async read(buffer, offset) {
      await setTimeout(20 - ((offset / mib) % 20));
      buffer.fill(1);
    },
  };
}

/** Notes the offsets of writes as they begin, and how many are under way at most. */
class Target {
  readonly begun: number[] = [];
  most = 0;
  #underWay = 0;
  readonly writes: Pick<RequestTarget, 'write' | 'writeZeroes' | 'writeCompressed'> = {
    write: (_buffer, offset) => this.#note(offset),
    writeZeroes: (offset) => this.#note(offset),
    writeCompressed: (_buffer, offset) => this.#note(offset),
  };

  async #note(offset: number): Promise<void> {
    this.begun.push(offset);
    this.#underWay += 1;
    this.most = Math.max(this.most, this.#underWay);
    await setTimeout(5);
    this.#underWay -= 1;
  }
}

async function copy(outOfOrder: boolean, fails?: number): Promise<Target> {
  const target = new Target();
  const from = source();
  const copier = new Copier({
    source: {
      ...from,
      read: (buffer, offset, lane) =>
        offset === fails ? Promise.reject(new Error('no')) : from.read(buffer, offset, lane),
    },
    targets: [target.writes as RequestTarget],
    filler: undefined,
    outOfOrder,
    parallel: 16,
    granularity: 1,
    compress: false,
    sparseSize: 4096,
    copyZeroes: false,
    zeroFrom: 0,
    leaveBacking: false,
    reserveAhead: false,
    salvage: false,
    rateLimit: undefined,
    onWarning: undefined,
    onProgress: undefined,
    signal: undefined,
  });
  await copier.run();
  return target;
}

test('writes begin in guest order, and are under way side by side', async () => {
  const { begun, most } = await copy(false);
  assert.deepEqual(
    begun,
    Array.from({ length: pieces }, (_, index) => index * mib),
  );
  assert.ok(most > 4, `${most} at a time`);
});

test('out of order, what was read first is written first', async () => {
  const { begun } = await copy(true);
  assert.equal(begun.length, pieces);
  assert.notDeepEqual(
    begun,
    begun.toSorted((a, b) => a - b),
  );
});

test('a piece that cannot be read keeps none after it waiting', async () => {
  await assert.rejects(copy(false, 3 * mib), /no/);
});
