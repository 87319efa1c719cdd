/** The tester is tested: barriers that are left out, and tables that are written too early, are found. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FilterFile } from '../../../src/storage/filters/filter-file.js';
import type { StorageFile } from '../../../src/storage/storage.js';
import { examineMapped } from './examination.js';
import { recordMapped, withImage } from './recording.js';
import { mappedWorkloads } from './workloads.js';

const options = { engineEvery: 1_000_000, realEvery: 0 };
const seed = 11;

/** A device whose barriers end at once, and do nothing. */
class NoBarriers extends FilterFile {
  readonly #barrier: Promise<void>;

  constructor(inner: StorageFile, barrier = Promise.resolve()) {
    super(inner);
    this.#barrier = barrier;
  }

  openQueue(): NoBarriers {
    return new NoBarriers(this.inner.openQueue());
  }

  override flush(): Promise<void> {
    return this.#barrier;
  }

  protected intercept(): undefined {
    return undefined;
  }
}

/** One of each way to keep tables: with a count, in one place, in two levels above another image. */
const tried = ['VDI', 'VHDX', 'QED above a backing file'];

for (const workload of mappedWorkloads.filter(({ name }) => tried.includes(name))) {
  test(`${workload.name}: barriers that do nothing, and single ones left out, are found`, async () => {
    await withImage(workload, async (filename) => {
      const wrap = (file: StorageFile): StorageFile => new NoBarriers(file);
      const without = await recordMapped(workload, seed, filename, { wrap });
      const outcome = await examineMapped(without, { ...options, momentEvery: 11 });
      assert.notEqual(outcome.failures.length, 0);
      const recording = await recordMapped(workload, seed, filename);
      // Some of them end what was promised, others order what is promised later.
      const kinds = new Set<string>();
      for (const number of recording.file.log.barriers.keys()) {
        if (kinds.size >= 2) break;
        const left = { ...options, withoutBarrier: number, momentEvery: 5 };
        const { failures } = await examineMapped(recording, left);
        for (const failure of failures) kinds.add(failure.replace(/^.*?\): |\d+/g, ''));
      }
      assert.ok(kinds.size >= 2, [...kinds].join('; '));
    });
  });
}
