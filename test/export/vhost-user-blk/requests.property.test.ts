/** Random requests through several virtqueues at once, however they are framed, against a model in memory. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { serve } from '../../../src/export/serve.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { type Part, VhostUserClient, header } from '../../support/vhost-user-client.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);
const sectors = 4096;
const sectorBytes = 512;

const Type = { in: 0, out: 1, flush: 4, discard: 11, writeZeroes: 13 } as const;

interface Step {
  readonly type: keyof typeof Type;
  readonly sector: number;
  readonly count: number;
  readonly fill: number;
  /** Where the parts that are read, and those that are written, are cut, in parts of the whole. */
  readonly cuts: readonly number[];
  readonly isIndirect: boolean;
  readonly queue: number;
}

const share = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const step: fc.Arbitrary<Step> = fc.record({
  type: fc.constantFrom('in', 'in', 'out', 'out', 'out', 'flush', 'discard', 'writeZeroes'),
  sector: fc.nat(sectors - 1),
  count: fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 1, max: 300 })),
  fill: fc.integer({ min: 1, max: 255 }),
  cuts: fc.array(share, { maxLength: 12 }),
  isIndirect: fc.boolean(),
  queue: fc.nat(3),
});

const scenario = fc.record({
  queues: fc.integer({ min: 1, max: 4 }),
  packed: fc.boolean(),
  size: fc.constantFrom(64, 128, 256),
  workers: fc.constantFrom(1, 1, 2),
  clusterSize: fc.constantFrom(512, 4096, 65536),
  batches: fc.array(fc.array(step, { minLength: 1, maxLength: 8 }), {
    minLength: 1,
    maxLength: 12,
  }),
});

type Scenario = typeof scenario extends fc.Arbitrary<infer Drawn> ? Drawn : never;

/** So many bytes in parts, some of which may be empty. */
function cut(length: number, cuts: readonly number[], isWritable: boolean): Part[] {
  const places = cuts.map((at) => Math.floor(at * length)).sort((one, other) => one - other);
  return [...places, length].map((to, index) => ({
    length: to - (places[index - 1] ?? 0),
    isWritable,
  }));
}

async function perform(client: VhostUserClient, one: Step, model: Buffer): Promise<void> {
  const { type, sector, cuts, isIndirect } = one;
  const queue = client.queues[one.queue % client.queues.length];
  const count = Math.min(one.count, sectors - sector);
  const [from, to] = [sector * sectorBytes, (sector + count) * sectorBytes];
  const half = Math.ceil(cuts.length / 2);
  const run = async (content: Buffer, answered: number): Promise<Buffer> => {
    const parts = [
      ...cut(content.length, cuts.slice(0, half), false),
      ...cut(answered + 1, cuts.slice(half), true),
    ];
    const answer = await queue.request(content, parts, isIndirect);
    assert.equal(answer[answered], 0, `${type} of ${count} sectors at ${sector}`);
    return answer.subarray(0, answered);
  };
  if (type === 'in') {
    const found = await run(header(Type.in, sector), to - from);
    assert.ok(found.equals(model.subarray(from, to)), `sector ${sector} reads as it should`);
    return;
  }
  if (type === 'flush') {
    await run(header(Type.flush, 0), 0);
    return;
  }
  if (type === 'out') {
    model.fill(one.fill, from, to);
    await run(Buffer.concat([header(Type.out, sector), model.subarray(from, to)]), 0);
    return;
  }
  const range = Buffer.alloc(16);
  range.writeBigUInt64LE(BigInt(sector), 0);
  range.writeUInt32LE(count, 8);
  if (type === 'writeZeroes') range.writeUInt32LE(one.fill % 2, 12);
  if (type === 'writeZeroes') model.fill(0, from, to);
  await run(Buffer.concat([header(Type[type], 0), range]), 0);
  if (type === 'writeZeroes') return;
  const found = await run(header(Type.in, sector), to - from);
  for (const [index, byte] of found.entries()) {
    assert.ok(byte === 0 || byte === model[from + index], 'discarded bytes are as before, or zero');
  }
  found.copy(model, from);
}

async function runScenario(t: TestContext, drawn: Scenario): Promise<void> {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.qcow2');
  const { clusterSize, queues, packed, size, workers } = drawn;
  await createImage(file, { format: 'qcow2', size: sectors * sectorBytes, clusterSize });
  const model = Buffer.alloc(sectors * sectorBytes);
  const problems: string[] = [];
  const image = await openImage(file);
  const socket = path.join(folder, 's');
  const vhostUserBlk = `unix:${socket},queues=4,packed=on`;
  const server = await serve([{ image }], {
    ...{ vhostUserBlk, workers, onProblem: (why: string) => problems.push(why) },
  });
  const client = await VhostUserClient.start(socket, { queues, packed, size });
  try {
    for (const batch of drawn.batches) {
      const taken: [number, number][] = [];
      const apart = batch.filter(({ sector, count }) => {
        const isFree = taken.every(([from, to]) => sector >= to || sector + count <= from);
        if (isFree) taken.push([sector, sector + count]);
        return isFree;
      });
      await Promise.all(apart.map((one) => perform(client, one, model)));
    }
  } finally {
    client.close();
    await server.close();
  }
  const content = Buffer.alloc(model.length);
  await image.read(content, 0);
  await image.close();
  assert.ok(content.equals(model));
  assert.deepEqual(problems, []);
  await runOk('qemu-img', ['check', file]);
}

test('random requests through virtqueues agree with a model', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  await fc.assert(
    fc.asyncProperty(scenario, (drawn) => runScenario(t, drawn)),
    { seed, numRuns: runs, interruptAfterTimeLimit: 120_000, includeErrorInReport: true },
  );
});
