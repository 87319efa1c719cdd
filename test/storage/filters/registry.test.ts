/** Filters by name: stacked they change nothing that is read, wrong names and options are refused. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import type { Image } from '../../../src/image/api/image.js';
import type { FilterChoice } from '../../../src/image/api/options.js';
import type { Extent } from '../../../src/image/api/reports.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { openPool } from '../../../src/image/threads/pool.js';
import { convert } from '../../../src/jobs/convert.js';
import { storageConformance } from '../../../src/storage/conformance/conformance.js';
import { filterList, withFilters } from '../../../src/storage/filters/registry.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../../src/storage/storage.js';
import { temporaryFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 60);

/** Every filter, with options by which it lets everything pass, soon. */
const harmless: readonly FilterChoice[] = [
  { name: 'trace', output: '/dev/null' },
  { name: 'fault', operation: 'close', nth: 1000 },
  { name: 'rate', bytesPerSecond: '1T', burst: 1 },
  { name: 'readahead', window: '64k' },
  { name: 'throttle', iopsRead: 1_000_000_000, bpsWrite: '1T', bpsWriteMax: '2T' },
  { name: 'blkdebug', injectError: [{ event: 'l2_load' }], optWriteZero: 512, maxTransfer: '1M' },
  { name: 'blkverify', raw: 'copy' },
  { name: 'quorum', children: ['copy', 'another'], voteThreshold: 2 },
  { name: 'preallocate', preallocSize: '64k', preallocAlign: '4k' },
];

/** Opens the further files that filters name. */
const openCopy = (name: string): Promise<StorageFile> => Promise.resolve(new MemoryFile(name));

test('every filter is tried here', () => {
  const tried = harmless.map((choice) => (typeof choice === 'string' ? choice : choice.name));
  assert.deepEqual(
    filterList().map(({ name }) => name),
    tried,
  );
});

for (const choice of harmless) {
  describe(JSON.stringify(choice), () => {
    const create = (): Promise<StorageFile> => withFilters(new MemoryFile(), [choice], openCopy);
    for (const { name, run } of storageConformance({ create })) test(name, run);
  });
}

const span = 400_000;
const place = fc.nat(span);
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('read' as const), at: place, length: fc.nat(90_000) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('sequence' as const),
      at: place,
      length: fc.nat(20_000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'write' as const,
        'zero' as const,
        'discard' as const,
        'truncate' as const,
      ),
      at: place,
      length: fc.nat(50_000),
    }),
  },
);

test(`stacked in any order they are transparent (seed ${seed})`, async () => {
  const stacks = fc.shuffledSubarray([...harmless, ...harmless], { minLength: 2 });
  const property = fc.asyncProperty(
    stacks,
    fc.array(step, { minLength: 1, maxLength: 25 }),
    fc.boolean(),
    async (choices, steps, usesQueues) => {
      const file = await withFilters(new MemoryFile('disk'), choices, openCopy);
      const queues = usesQueues ? [file, file.openQueue(), file.openQueue()] : [file];
      const model = Buffer.alloc(2 * span);
      let size = 0;
      for (const [index, { kind, at, length }] of steps.entries()) {
        const queue = queues[index % queues.length];
        if (kind === 'write') {
          await queue.write(Buffer.alloc(length, index + 1), at);
          model.fill(index + 1, at, at + length);
          if (length > 0) size = Math.max(size, at + length);
        } else if (kind === 'zero') {
          await queue.writeZeroes(at, length, index % 2 === 0);
          model.fill(0, at, at + length);
          if (length > 0) size = Math.max(size, at + length);
        } else if (kind === 'discard') {
          if (await queue.discard(at, length)) model.fill(0, at, Math.min(size, at + length));
        } else if (kind === 'truncate') {
          await queue.truncate(at);
          model.fill(0, at);
          size = at;
        } else {
          const reads = kind === 'read' ? 1 : 6;
          for (let read = 0; read < reads; read++) {
            const begin = at + read * length;
            const bytes = Buffer.alloc(length, 0xee);
            if (read % 2 === 0) await queue.read(bytes, begin);
            else await queue.readVector([bytes.subarray(0, 100), bytes.subarray(100)], begin);
            assert.ok(bytes.equals(model.subarray(begin, begin + length)), `${kind} at ${begin}`);
          }
        }
        assert.equal(await queue.size(), size);
      }
      for (const queue of queues) await queue.close();
    },
  );
  await fc.assert(property, { seed, numRuns: runs });
});

test('wrong names, options and values are refused in a line that names the choices', async (t) => {
  const disk = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(disk, { format: 'qcow2', size: '1M' });
  for (const [choice, problem] of [
    [
      'nonsense',
      "there is no filter 'nonsense'; there are trace, fault, rate, readahead, throttle, blkdebug, blkverify, quorum and preallocate",
    ],
    [{ name: 'rates' }, "there is no filter 'rates'; there are trace"],
    [5, 'a filter is its name, or an object with it; there are trace'],
    ['rate', "the filter 'rate' needs bytesPerSecond"],
    [
      { name: 'rate', bps: 5 },
      "the filter 'rate' has no option 'bps'; it has bytesPerSecond and burst",
    ],
    [
      { name: 'rate', bytesPerSecond: 0 },
      "bytesPerSecond of the filter 'rate': a size of at least 1 bytes",
    ],
    [{ name: 'rate', bytesPerSecond: '5 apples' }, "bytesPerSecond of the filter 'rate': a size"],
    [{ name: 'readahead', window: 5 }, 'a size from 65536 to 1073741824 bytes is expected'],
    [{ name: 'fault', operation: 'reading' }, 'one of read, write, flush'],
    [{ name: 'fault', operation: 'read', errno: 'EVIL' }, 'an errno such as ENOSPC is expected'],
    [
      { name: 'throttle', bpsTotal: 5, bpsRead: 5 },
      'bpsTotal and bpsRead cannot be given together',
    ],
    [{ name: 'throttle', iopsReadMax: 5 }, 'iopsReadMax needs iopsRead'],
    [{ name: 'throttle', iopsRead: 9, iopsReadMax: 5 }, 'iopsReadMax is lower than iopsRead'],
  ] as const) {
    await assert.rejects(
      openImage(disk, { filters: [choice as unknown as FilterChoice] }),
      ({ code, message }: { code: string; message: string }) => {
        assert.equal(code, 'ERR_COWHERD_INVALID_ARGUMENT');
        assert.ok(message.includes(problem), message);
        assert.ok(!message.includes('\n'));
        return true;
      },
    );
  }
});

async function extentsOf(image: Image): Promise<readonly Extent[]> {
  const extents: Extent[] = [];
  for await (const extent of image.map()) extents.push(extent);
  return extents;
}

test('an image goes through its filters, on other threads and in conversions too', async (t) => {
  const folder = await temporaryFolder(t);
  const disk = path.join(folder, 'disk.qcow2');
  const output = path.join(folder, 'trace');
  await createImage(disk, { format: 'qcow2', size: '4M' });
  const filters: readonly FilterChoice[] = ['readahead', { name: 'trace', output }];
  const tracedAt = async (offset: number | undefined, kind: string): Promise<boolean> => {
    const lines = (await readFile(output, 'utf8')).split('\n');
    return lines.some((line) => line.startsWith(`${disk}: ${kind} ${String(offset)}+`));
  };
  const image = await openImage(disk, { filters });
  await image.write(new Uint8Array(65536).fill(1), 0);
  await image.flush();
  const [{ offset }] = await extentsOf(image);
  assert.ok(await tracedAt(offset, 'write'));

  const library = new URL('../../../src/index.js', import.meta.url).href;
  const worker = new Worker(
    `const { workerData } = require('node:worker_threads');
     import(${JSON.stringify(library)}).then(async ({ attachImage }) => {
       const image = await attachImage(workerData);
       await image.write(new Uint8Array(65536).fill(2), 1 << 20);
       const bytes = new Uint8Array(65536);
       await image.read(bytes, 0);
       if (bytes.some((byte) => byte !== 1)) throw new Error('not what was written');
       await image.close();
     });`,
    { eval: true, workerData: image.handle() },
  );
  await new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
  const bytes = new Uint8Array(65536);
  await image.read(bytes, 1 << 20);
  assert.ok(bytes.every((byte) => byte === 2));
  const [, , second] = await extentsOf(image);
  assert.ok(await tracedAt(second.offset, 'write'), 'what another thread wrote is traced');
  await image.close();

  const pool = await openPool(disk, {
    queues: 2,
    filters: [{ name: 'fault', operation: 'read', nth: 30, always: true }],
  });
  const reads = Array.from({ length: 40 }, () => pool.read(new Uint8Array(512), 0));
  const results = await Promise.allSettled(reads);
  const failed = results.filter(({ status }) => status === 'rejected').length;
  assert.ok(failed > 10 && failed < 40, `${failed} failed: all threads count together`);
  await pool.close();

  const targets = path.join(folder, 'targets');
  await convert(disk, path.join(folder, 'copy.raw'), {
    sourceOptions: [{ filters: [{ name: 'trace', output }] }],
    targetOptions: { filters: [{ name: 'trace', output: targets }] },
  });
  assert.ok(await tracedAt(second.offset, 'read'));
  assert.match(await readFile(targets, 'utf8'), /copy\.raw: write 1048576\+65536 \d+us ok$/m);
  await assert.rejects(
    convert(disk, path.join(folder, 'none.raw'), {
      sourceOptions: [
        { filters: [{ name: 'fault', operation: 'read', errno: 'ENXIO', always: true }] },
      ],
    }),
    /No such device or address/,
  );
});
