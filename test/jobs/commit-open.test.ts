/** Committing an image that is open: its queues go on afterwards, and no request runs meanwhile. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import type { CreateOptions } from '../../src/image/api/options.js';
import type { DirtyRange, Image, RequestTarget } from '../../src/image/api/image.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { attachImage } from '../../src/image/threads/attach.js';
import { commit } from '../../src/jobs/commit.js';
import { Random } from '../stress/random.js';
import { needsTool, runOk, temporaryFolder } from '../support/tools.js';

const mib = 1024 * 1024;
const size = 6 * mib;

interface Layer {
  readonly format: string;
  readonly size: number;
  readonly options?: CreateOptions;
}

/** Makes a chain, from the lowest on, each filled at random. @returns the path of the uppermost */
async function makeChain(
  t: TestContext,
  layers: Readonly<Record<string, Layer>>,
  random: Random,
): Promise<string> {
  const folder = await temporaryFolder(t);
  let below: { readonly backingFile: string; readonly backingFormat: string } | undefined;
  let top = '';
  for (const [name, { format, size: bytes, options }] of Object.entries(layers)) {
    top = path.join(folder, name);
    await createImage(top, { ...options, ...below, format, size: bytes });
    await using image = await openImage(top, { format });
    await writeAtRandom(image, random, 20);
    below = { backingFile: name, backingFormat: format };
  }
  return top;
}

async function writeAtRandom(image: Image, random: Random, count: number): Promise<void> {
  for (let index = 0; index < count; index++) await write(image, image, random);
}

async function write(target: RequestTarget, image: Image, random: Random): Promise<void> {
  const offset = 512 * random.below(image.size / 512);
  const length = Math.min(image.size - offset, 512 * (1 + random.below(300)));
  if (random.below(4) === 0) await target.writeZeroes(offset, length);
  else await target.write(new Uint8Array(length).fill(1 + random.below(255)), offset);
}

async function contentOf(image: Image, bytes = image.size): Promise<Buffer> {
  const content = Buffer.alloc(bytes);
  await image.read(content.subarray(0, image.size), 0);
  return content;
}

async function dirtyRangesOf(image: Image): Promise<readonly DirtyRange[]> {
  const ranges: DirtyRange[] = [];
  for await (const range of image.bitmaps.dirtyRanges('changes')) ranges.push(range);
  return ranges;
}

async function assertSound(file: string): Promise<void> {
  await runOk('qemu-img', ['check', '-q', file]);
}

const chains: Readonly<Record<string, Readonly<Record<string, Layer>>>> = {
  'a shorter raw disk': {
    base: { format: 'raw', size: 2 * mib },
    top: { format: 'qcow2', size },
  },
  'a shorter QED image': {
    base: { format: 'qed', size: 2 * mib },
    top: { format: 'qcow2', size, options: { clusterSize: 4096 } },
  },
  'a VDI disk': {
    base: { format: 'vdi', size },
    top: { format: 'qcow2', size, options: { extendedL2: true } },
  },
  'an image of a chain': {
    root: { format: 'raw', size: 3 * mib },
    base: { format: 'qcow2', size: 4 * mib },
    top: { format: 'qcow2', size, options: { compat: '0.10', clusterSize: 512 } },
  },
  'an image, from one with lazy counts': {
    base: { format: 'qcow2', size },
    top: { format: 'qcow2', size, options: { lazyRefcounts: true } },
  },
};

for (const [name, layers] of Object.entries(chains)) {
  test(`into ${name}, while queues write`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 2 ** 30);
    t.diagnostic(`seed ${seed}`);
    const random = new Random(seed);
    const top = await makeChain(t, layers, random);
    const image = await openImage(top, { format: 'qcow2' });
    const queues = [image, await image.openQueue(), await image.openQueue()];
    let isCommitting = true;
    const writing = queues.map(async (queue) => {
      for (let after = 0; after < 10; after += isCommitting ? 0 : 1) {
        await write(queue, image, random);
      }
    });
    await commit(image);
    await commit(image);
    isCommitting = false;
    await Promise.all(writing);

    const content = await contentOf(image);
    await commit(image);
    assert.ok((await contentOf(image)).equals(content), 'the disk is another one');
    for await (const { depth, present } of image.map()) assert.ok(depth > 0 || !present);
    const below = await contentOf(image.backing!);
    assert.ok(below.subarray(0, size).equals(content), 'the base is another one');

    await write(queues[1], image, random);
    const last = await contentOf(image);
    await image.close();
    await assertSound(top);
    if (layers['base'].format !== 'raw') await assertSound(path.join(top, '..', 'base'));
    await using again = await openImage(top, { readOnly: true });
    assert.ok((await contentOf(again)).equals(last), 'the disk is another one when opened again');
  });
}

test('snapshots, bitmaps and what they hold stay', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const layers = { base: { format: 'qcow2', size }, top: { format: 'qcow2', size } };
  const random = new Random(7);
  const top = await makeChain(t, layers, random);
  await using image = await openImage(top, { format: 'qcow2' });
  const then = await contentOf(image);
  await image.snapshots.create('then');
  await image.bitmaps.add('changes');
  await writeAtRandom(image, random, 10);
  const now = await contentOf(image);
  const dirty = await dirtyRangesOf(image);
  await commit(image);
  assert.ok((await contentOf(image)).equals(now));
  assert.deepEqual(await dirtyRangesOf(image), dirty);
  await writeAtRandom(image, random, 10);
  await image.close();
  await assertSound(top);
  // Where the base has other data now, the snapshot shows those where it held nothing.
  await using snapshot = await openImage(top, { readOnly: true, snapshot: 'then' });
  assert.equal((await contentOf(snapshot)).length, then.length);
});

test('into the root of a chain, without emptying anything', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const layers = {
    root: { format: 'raw', size: 2 * mib },
    middle: { format: 'qcow2', size: 4 * mib },
    top: { format: 'qcow2', size, options: { dataFile: 'data' } },
  };
  const top = await makeChain(t, layers, new Random(3));
  await using image = await openImage(top, { format: 'qcow2' });
  const content = await contentOf(image);
  await commit(image, { base: 'root' });
  assert.ok((await contentOf(image)).equals(content));
  assert.ok((await contentOf(image.backing!.backing!)).equals(content));
  await image.write(new Uint8Array(4096).fill(9), mib);
  await commit(image);
  assert.equal((await contentOf(image.backing!)).readUInt8(mib), 9);
  for await (const { depth, present } of image.map()) assert.ok(depth > 0 || !present);
  await image.close();
  await assertSound(top);
});

test('what is refused leaves the image and those below it as they were', async (t) => {
  const layers = {
    base: { format: 'vdi', size: 2 * mib },
    top: { format: 'qcow2', size },
  };
  const top = await makeChain(t, layers, new Random(5));
  const image = await openImage(top, { format: 'qcow2' });
  const content = await contentOf(image);
  const refused = (code: string, why: RegExp) => (error: unknown) => {
    assert.equal((error as { code: string }).code, code);
    assert.match((error as Error).message, why);
    return true;
  };
  await assert.rejects(
    commit(image),
    refused('ERR_COWHERD_UNSUPPORTED', /does not support resize/),
  );
  await assert.rejects(
    commit(image, { base: 'other' }),
    refused('ERR_COWHERD_BACKING', /Did not find 'other' in the backing chain/),
  );
  await using lower = await openImage(path.join(top, '..', 'base'), { readOnly: true });
  await assert.rejects(commit(image), refused('ERR_COWHERD_LOCKED', /lock/));
  assert.ok((await contentOf(image)).equals(content));
  await image.resize(2 * mib, { shrink: true });
  await lower.close();
  await assert.rejects(
    commit(image, { signal: AbortSignal.abort() }),
    refused('ERR_COWHERD_ABORTED', /cancelled/),
  );
  const attached = await attachImage(image.handle());
  for (const each of [image, attached]) {
    await assert.rejects(commit(each), refused('ERR_COWHERD_UNSUPPORTED', /other threads/));
  }
  await attached.close();
  await image.close();
  const reader = await openImage(top, { readOnly: true });
  await assert.rejects(commit(reader), refused('ERR_COWHERD_READ_ONLY', /read-only/));
  await reader.close();
  await using base = await openImage(path.join(top, '..', 'base'));
  await assert.rejects(
    commit(base),
    refused('ERR_COWHERD_BACKING', /does not have a backing file/),
  );
});
