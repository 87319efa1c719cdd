/** The tester is tested: what it is to find is put there on purpose. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ControlWord } from '../../src/engine/words/control-block.js';
import { LongMutex } from '../../src/engine/words/long-mutex.js';
import { FlushOrder } from '../../src/format/qcow2/metadata/flush.js';
import type { Qcow2Image } from '../../src/format/qcow2/image.js';
import { FilterFile } from '../../src/storage/filters/filter-file.js';
import type { StorageFile } from '../../src/storage/storage.js';
import { type Outcome, examine } from './examination.js';
import { type Sabotage, type Workload, record } from './recording.js';
import { workloadNamed } from './workloads.js';

const options = { engineEvery: 1_000_000, realEvery: 0 };

/** New clusters in an L2 table that is on disk already; each flush needs two barriers. */
const plain: Workload = {
  name: 'plain',
  image: { clusterSize: 4096 },
  sectors: 16384,
  before: (disk) => disk.write(0, 16),
  run: async (disk) => {
    await disk.write(64, 16);
    await disk.flush();
    await disk.write(0, 8);
    await disk.write(128, 16);
    await disk.flush();
  },
};

/** New L2 tables in clusters that held something else. */
const newTables: Workload = {
  name: 'new tables',
  image: { clusterSize: 4096 },
  sectors: 16384,
  before: async (disk) => {
    await disk.write(0, 64);
    for (let sector = 0; sector < 64; sector += 8) await disk.compress(sector);
  },
  run: async (disk) => {
    await disk.write(1024, 8);
    await disk.flush();
    await disk.write(8192, 8);
    await disk.flush();
  },
};

/** Discards while a flush is under way. */
const discards: Workload = {
  name: 'discards',
  image: { clusterSize: 4096 },
  sectors: 2048,
  before: (disk) => disk.write(0, 128),
  run: async (disk) => {
    for (let sector = 0; sector < 48; sector += 8) {
      await disk.write(64 + sector, 8);
      const flush = disk.flush();
      await disk.discard(sector, 8);
      await flush;
    }
    await disk.flush();
  },
};

async function examined(workload: Workload, sabotage: Sabotage): Promise<Outcome> {
  const { failures } = await examine(await record(workload, 1), options);
  assert.deepEqual(failures, [], 'without the sabotage there is nothing to find');
  return examine(await record(workload, 1, sabotage), options);
}

/** Replaces the flush order by one whose parts are changed. */
function withFlushParts(
  change: (parts: ConstructorParameters<typeof FlushOrder>[0]) => Partial<typeof parts>,
): Sabotage {
  return {
    format: ({ metadata }: Qcow2Image) => {
      const { control: memory, file, l1, l2Cache, refcounts } = metadata;
      const parts = {
        memory,
        counters: l2Cache.counters!,
        mutex: new LongMutex(memory, ControlWord.flushMutex),
        file,
        dataFile: undefined,
        l1,
        l2Cache,
        refcountTable: refcounts.table,
        refcountCache: refcounts.cache,
        lazyRefcounts: () => false,
        overlap: metadata.overlap,
        corruptMark: metadata.corruptMark,
      };
      const flushOrder = new FlushOrder({ ...parts, ...change(parts) });
      Object.defineProperty(metadata, 'flushOrder', { value: flushOrder });
    },
  };
}

test('a flush order that writes L2 slices before reference counts is found', async () => {
  const { failures } = await examined(
    plain,
    withFlushParts(({ l2Cache, refcountCache }) => ({
      l2Cache: refcountCache,
      refcountCache: l2Cache,
    })),
  );
  assert.match(failures.join('\n'), /cluster \d+ has 1 references, 0 are counted/);
});

test('a flush order that writes the L1 table before L2 slices is found', async () => {
  const { failures } = await examined(
    newTables,
    withFlushParts(({ l1, refcountTable }) => ({ l1: refcountTable, refcountTable: l1 })),
  );
  assert.match(failures.join('\n'), /no entry|shows|beyond/);
});

test('a flush order that takes counts for lazy, without the dirty bit, is found', async () => {
  const { failures } = await examined(
    plain,
    withFlushParts(() => ({ lazyRefcounts: () => true })),
  );
  assert.match(failures.join('\n'), /has 1 references, 0 are counted/);
});

/** A device that says of some barriers that they have completed, and does nothing. */
class ForgetfulFile extends FilterFile {
  readonly #forgets: (number: number) => boolean;
  readonly #count: { flushes: number };

  constructor(inner: StorageFile, forgets: (number: number) => boolean, count = { flushes: 0 }) {
    super(inner);
    this.#forgets = forgets;
    this.#count = count;
  }

  openQueue(): ForgetfulFile {
    return new ForgetfulFile(this.inner.openQueue(), this.#forgets, this.#count);
  }

  override async flush(): Promise<void> {
    if (!this.#forgets(this.#count.flushes++)) await this.inner.flush();
  }

  protected intercept(): undefined {
    return undefined;
  }
}

test('a device that ignores every barrier is found', async () => {
  const { failures } = await examined(plain, {
    wrap: (file) => new ForgetfulFile(file, () => true),
  });
  assert.notEqual(failures.length, 0);
});

test('a barrier that is missing is found, and what it separated is told', async () => {
  const recording = await record(plain, 1);
  const found: string[] = [];
  for (let skipped = 0; skipped < 2; skipped++) {
    const outcome = await examine(recording, { ...options, withoutBarrier: skipped });
    found.push(outcome.failures.join('\n'));
  }
  assert.match(found[0], /1 references, 0 are counted/, 'counts and what they count');
  assert.match(found[1], /sector \d+ shows mark/, 'what is flushed and what the guest is told');
});

test('clusters that are reused before their removal is on disk are found', async () => {
  const hasty: Sabotage = {
    format: ({ metadata }) => {
      const { flushOrder } = metadata;
      const proxy = new Proxy(flushOrder, {
        get: (_, name) => {
          // What limbo asks; the flush order itself still knows better.
          if (name === 'completed') return (flushOrder.begun + 1000) | 0;
          const value: unknown = Reflect.get(flushOrder, name, flushOrder);
          return typeof value === 'function' ? (value.bind(flushOrder) as unknown) : value;
        },
      });
      Object.defineProperty(metadata, 'flushOrder', { value: proxy });
    },
  };
  const { failures } = await examined(discards, hasty);
  assert.match(failures.join('\n'), /1 references, 0 are counted/);
});

test('a repair whose barriers do nothing is found', async () => {
  const failures: string[] = [];
  for (const name of [
    'repair of an image that was not closed',
    'repair by new refcount structures',
  ]) {
    for (let seed = 1; seed <= 3; seed++) {
      const wrap = (file: StorageFile): StorageFile => new ForgetfulFile(file, () => true);
      const recording = await record(workloadNamed(name), seed, { wrap });
      failures.push(...(await examine(recording, options)).failures);
    }
  }
  assert.match(failures.join('\n'), /counted too low|repaired again|not closed/);
});

/** A disk of which a bitmap says what changes. */
const recorded: Workload = {
  ...plain,
  name: 'recorded',
  hasBitmap: true,
  before: async (disk) => {
    await disk.write(0, 16);
    await disk.bitmap('add', 'since');
  },
};

test('a bitmap that is not marked, or lacks what was written, is found', async () => {
  const { failures } = await examined(recorded, {
    format: ({ metadata: { dirtyMap } }) => {
      dirtyMap.note = () => undefined;
    },
  });
  assert.match(failures.join('\n'), /has changed, and the bitmap says nothing of it/);
  const unmarked = await examined(recorded, {
    format: ({ bitmaps, metadata: { dirtyMap } }) => {
      bitmaps.record = () => {
        dirtyMap.start(10, recorded.sectors * 512);
        return Promise.resolve();
      };
    },
  });
  assert.match(unmarked.failures.join('\n'), /has changed, and the bitmap says nothing of it/);
});
