/**
 * Random requests on one and several queues of one thread against a model in memory, on random
 * geometry, over memory and real files; then the real tools judge the image.
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { Image, RequestTarget } from '../../../src/image/api/image.js';
import type { CreateOptions } from '../../../src/image/api/options.js';
import { createImage, formatFile } from '../../../src/image/graph/create.js';
import { openImage, openImageOn } from '../../../src/image/graph/open.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);

type Step =
  | {
      readonly kind: 'write';
      readonly at: number;
      readonly length: number;
      readonly fill: number;
      /** Where the data are cut into buffers, in parts of the whole; left out, they are one. */
      readonly cuts: readonly number[] | undefined;
    }
  | { readonly kind: 'zero'; readonly at: number; readonly length: number; readonly unmap: boolean }
  | { readonly kind: 'discard'; readonly at: number; readonly length: number }
  | { readonly kind: 'compress'; readonly at: number; readonly fill: number }
  | { readonly kind: 'flush' }
  | { readonly kind: 'reopen' };

interface Scenario {
  readonly options: CreateOptions;
  /** Bytes. */
  readonly size: number;
  readonly backing: 'none' | 'raw' | 'qcow2' | 'short' | 'long';
  readonly queues: number;
  readonly cacheSize: number;
  /** Steps of one batch are under way at the same time; they touch different bytes. */
  readonly batches: readonly (readonly Step[])[];
}

const position = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const lengths = fc.oneof(
  fc.integer({ min: 1, max: 5000 }),
  fc.constantFrom(512, 4096, 65536),
  fc.integer({ min: 1, max: 300_000 }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      at: position,
      length: lengths,
      fill: fc.integer({ min: 1, max: 255 }),
      cuts: fc.option(fc.array(position, { maxLength: 6 }), { nil: undefined }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('zero' as const),
      at: position,
      length: lengths,
      unmap: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('discard' as const), at: position, length: lengths }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('compress' as const),
      at: position,
      fill: fc.integer({ min: 0, max: 255 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('flush' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reopen' as const) }) },
);

const scenario: fc.Arbitrary<Scenario> = fc
  .record({
    clusterBits: fc.constantFrom(9, 10, 12, 14, 16, 18, 21),
    extendedL2: fc.boolean(),
    refcountBits: fc.constantFrom(1, 2, 4, 8, 16, 32, 64),
    lazyRefcounts: fc.boolean(),
    version2: fc.boolean(),
    sectors: fc.integer({ min: 1, max: 4000 }),
    backing: fc.constantFrom(
      'none' as const,
      'none' as const,
      'raw' as const,
      'qcow2' as const,
      'short' as const,
      'long' as const,
    ),
    queues: fc.integer({ min: 1, max: 4 }),
    cacheSize: fc.constantFrom(0, 32 * 1024 * 1024),
    batches: fc.array(fc.array(step, { minLength: 1, maxLength: 10 }), {
      minLength: 1,
      maxLength: 14,
    }),
  })
  .map(({ clusterBits, extendedL2, refcountBits, lazyRefcounts, version2, sectors, ...rest }) => ({
    ...rest,
    size: sectors * 512,
    options: version2
      ? { clusterSize: 2 ** clusterBits, compat: '0.10' as const }
      : {
          clusterSize: 2 ** clusterBits,
          refcountBits,
          lazyRefcounts,
          extendedL2: extendedL2 && clusterBits >= 14,
        },
  }));

for (const storage of ['file', 'memory'] as const) {
  test(`random requests agree with a model, over ${storage}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    t.diagnostic(`seed ${seed}, ${runs} runs`);
    await fc.assert(
      fc.asyncProperty(scenario, async (drawn) => {
        await runScenario(t, drawn, storage);
      }),
      {
        seed,
        numRuns: runs,
        endOnFailure: false,
        interruptAfterTimeLimit: 120_000,
        includeErrorInReport: true,
      },
    );
  });
}

async function runScenario(
  t: TestContext,
  drawn: Scenario,
  storage: 'file' | 'memory',
): Promise<void> {
  const folder = await temporaryFolder(t);
  const target = path.join(folder, 'disk.qcow2');
  const model = Buffer.alloc(drawn.size);
  const options = { ...drawn.options, ...(await makeBacking(folder, drawn, model)) };
  const memory = storage === 'memory' ? new MemoryFile(target) : undefined;
  if (memory === undefined) {
    await createImage(target, { ...options, format: 'qcow2', size: drawn.size });
  } else {
    await formatFile(memory, { ...options, format: 'qcow2', size: drawn.size });
  }
  const open = (): Promise<Image> =>
    memory === undefined
      ? openImage(target, { cacheSize: drawn.cacheSize })
      : openImageOn(memory.openQueue(), { cacheSize: drawn.cacheSize });

  let image = await open();
  let queues = await openQueues(image, drawn.queues);
  try {
    for (const batch of drawn.batches) {
      await runBatch(batch, queues, model, image.clusterSize ?? 512);
      await expectContent(queues[0], model);
      if (!batch.some(({ kind }) => kind === 'reopen')) continue;
      await image.close();
      image = await open();
      queues = await openQueues(image, drawn.queues);
    }
  } finally {
    await image.close();
  }
  if (memory !== undefined) {
    const bytes = new Uint8Array(await memory.size());
    await memory.read(bytes, 0);
    await writeFile(target, bytes);
  }
  await judge(target, model);
}

async function makeBacking(folder: string, drawn: Scenario, model: Buffer): Promise<CreateOptions> {
  if (drawn.backing === 'none') return {};
  const factor = { raw: 1, qcow2: 1, short: 0.4, long: 1.7 }[drawn.backing];
  const size = Math.max(512, Math.floor((drawn.size * factor) / 512) * 512);
  const content = Buffer.alloc(size);
  for (let at = 0; at < size; at += 4096) {
    content.fill(((at / 4096) % 255) + 1, at, Math.min(size, at + 4096));
  }
  content.copy(model);
  const raw = path.join(folder, 'base.raw');
  await writeFile(raw, content);
  if (drawn.backing !== 'qcow2') return { backingFile: raw, backingFormat: 'raw' };
  const qcow2 = path.join(folder, 'base.qcow2');
  await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', raw, qcow2]);
  return { backingFile: qcow2, backingFormat: 'qcow2' };
}

async function openQueues(image: Image, count: number): Promise<RequestTarget[]> {
  const queues: RequestTarget[] = [image];
  while (queues.length < count) queues.push(await image.openQueue());
  return queues;
}

/** Runs the steps of a batch at the same time, leaving out those that touch another's bytes. */
async function runBatch(
  batch: readonly Step[],
  queues: readonly RequestTarget[],
  model: Buffer,
  clusterSize: number,
): Promise<void> {
  const taken: [number, number][] = [];
  const claim = (start: number, end: number): boolean => {
    if (taken.some(([from, to]) => start < to && end > from)) return false;
    taken.push([start, end]);
    return true;
  };
  const requests = batch.map(async (one, index) => {
    const queue = queues[index % queues.length];
    if (one.kind === 'flush') return queue.flush();
    if (one.kind === 'reopen') return;
    let start = Math.floor(one.at * model.length);
    if (one.kind === 'compress') start -= start % clusterSize;
    const wanted = one.kind === 'compress' ? clusterSize : one.length;
    const length = Math.min(wanted, model.length - start);
    if (!claim(start, start + length)) return;
    if (one.kind === 'discard') {
      await queue.discard(start, length);
      await adoptDiscarded(queue, model, start, length);
    } else if (one.kind === 'zero') {
      model.fill(0, start, start + length);
      await queue.writeZeroes(start, length, { unmap: one.unmap });
    } else {
      model.fill(one.fill, start, start + length);
      const data = Buffer.from(model.subarray(start, start + length));
      if (one.kind === 'compress') await queue.writeCompressed(data, start);
      else if (one.cuts === undefined) await queue.write(data, start);
      else await queue.writev(partsOf(data, one.cuts), start);
    }
  });
  await Promise.all(requests);
}

/** Copies of data, cut at places given in parts of the whole; some may be empty. */
function partsOf(data: Buffer, cuts: readonly number[]): Buffer[] {
  const places = cuts.map((cut) => Math.floor(cut * data.length)).sort((one, other) => one - other);
  return [0, ...places].map((from, index) => Buffer.from(data.subarray(from, places[index])));
}

/** A discarded byte may read as before or as zero; the model takes what it finds. */
async function adoptDiscarded(
  queue: RequestTarget,
  model: Buffer,
  start: number,
  length: number,
): Promise<void> {
  const found = Buffer.alloc(length);
  await queue.read(found, start);
  for (let index = 0; index < length; index++) {
    const before = model[start + index];
    assert.ok(found[index] === before || found[index] === 0, `byte ${start + index} after discard`);
  }
  found.copy(model, start);
}

async function expectContent(queue: RequestTarget, model: Buffer): Promise<void> {
  const content = Buffer.alloc(model.length);
  await queue.read(content, 0);
  const parts = partsOf(Buffer.alloc(model.length), [0.001, 0.02, 0.02, 0.3, 0.55]);
  await queue.readv(parts, 0);
  assert.ok(Buffer.concat(parts).equals(content), 'several buffers get what one does');
  if (content.equals(model)) return;
  const at = content.findIndex((byte, index) => byte !== model[index]);
  assert.fail(`guest offset ${at} reads ${content[at]}, written was ${model[at]}`);
}

/** The real tools find no error, no leak, and the model's content. */
async function judge(target: string, model: Buffer): Promise<void> {
  const check = await run('qemu-img', ['check', '-f', 'qcow2', target]);
  assert.equal(check.code, 0, check.stdout + check.stderr);
  const expected = `${target}.expected`;
  await writeFile(expected, model);
  const compared = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', expected, target]);
  assert.equal(compared.code, 0, compared.stdout + compared.stderr);
  const image = await openImage(target, { readOnly: true });
  const result = await image.check();
  await image.close();
  assert.deepEqual(result.findings, []);
}

test('requests outside the disk, on a closed or a read-only image are refused', async (t) => {
  const target = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(target, { format: 'qcow2', size: 1000 });
  const image = await openImage(target);
  assert.equal(image.size, 1024);
  const buffer = new Uint8Array(512);
  await assert.rejects(image.read(buffer, 600), { code: 'ERR_COWHERD_OUT_OF_RANGE' });
  await assert.rejects(image.write(buffer, -1), { code: 'ERR_COWHERD_OUT_OF_RANGE' });
  await assert.rejects(image.readv([buffer, buffer], 512), { code: 'ERR_COWHERD_OUT_OF_RANGE' });
  await assert.rejects(image.writev([buffer, buffer], 512), { code: 'ERR_COWHERD_OUT_OF_RANGE' });
  const noList = buffer as unknown as Uint8Array[];
  await assert.rejects(image.readv(noList, 0), { code: 'ERR_COWHERD_INVALID_ARGUMENT' });
  await assert.rejects(image.discard(0.5, 1), { code: 'ERR_COWHERD_OUT_OF_RANGE' });
  await image.close();
  await assert.rejects(image.read(buffer, 0), { code: 'ERR_COWHERD_CLOSED' });
  await using readOnly = await openImage(target, { readOnly: true });
  await assert.rejects(readOnly.write(buffer, 0), { code: 'ERR_COWHERD_READ_ONLY' });
});

test('an image that was only read stays as it is, byte for byte', async (t) => {
  const target = path.join(await temporaryFolder(t), 'disk.qcow2');
  await createImage(target, { format: 'qcow2', size: '1M', lazyRefcounts: true });
  const before = await readFile(target);
  const image = await openImage(target);
  await image.read(new Uint8Array(4096), 0);
  await image.flush();
  await image.close();
  assert.ok(before.equals(await readFile(target)));
});
