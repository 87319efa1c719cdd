/** Images that are open as sources and targets: converted and compared as they are, and left open. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { Image } from '../../src/image/api/image.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { compare } from '../../src/jobs/compare.js';
import { type ConversionSource, convert } from '../../src/index.js';
import { temporaryFolder } from '../support/tools.js';

const mib = 1024 * 1024;

async function newImage(file: string, format: string, sizeMib: number): Promise<Image> {
  await createImage(file, { format, size: sizeMib * mib });
  return openImage(file, { format });
}

test('open images are sources and targets, and stay open', async (t) => {
  const folder = await temporaryFolder(t);
  const file = (name: string): string => path.join(folder, name);
  const disk = Buffer.alloc(4 * mib);
  randomBytes(mib + 5000).copy(disk, 70_000);
  await writeFile(file('disk.raw'), disk);
  await using source = await newImage(file('source.qcow2'), 'qcow2', 4);
  // What has not reached the disk is there too.
  await source.write(disk.subarray(65536, 2 * mib), 65536);
  for (const [format, queues] of [
    ['qcow2', 1],
    ['vdi', 1],
    ['raw', 3],
  ] as const) {
    await using target = await newImage(file(`target.${format}`), format, 4);
    await target.write(Buffer.alloc(mib, 9), 3 * mib);
    await convert(source, target, { queues, outOfOrder: queues > 1 });
    assert.ok((await compare(source, target)).identical, format);
    assert.ok((await compare(file('disk.raw'), target)).identical, format);
    await target.write(Buffer.alloc(512, 1), 0);
    const { difference } = await compare(target, file('disk.raw'));
    assert.deepEqual(difference, { kind: 'content', offset: 0 });
    assert.equal(target.stats().queues.filter(({ open }) => open).length, 1, 'queues left open');
  }
  await convert([source, file('disk.raw')], file('twice.raw'), { to: 'raw', queues: 2 });
  const twice = await openImage(file('twice.raw'), { format: 'raw', readOnly: true });
  const content = Buffer.alloc(8 * mib);
  await twice.read(content, 0);
  await twice.close();
  assert.ok(content.equals(Buffer.concat([disk, disk])));
  assert.equal(source.stats().queues.filter(({ open }) => open).length, 1, 'queues left open');
  await source.write(Buffer.alloc(512), 0);
});

test('what an open image cannot be is refused, and nothing is written', async (t) => {
  const folder = await temporaryFolder(t);
  const file = (name: string): string => path.join(folder, name);
  await using one = await newImage(file('one.qcow2'), 'qcow2', 2);
  await using small = await newImage(file('small.qcow2'), 'qcow2', 1);
  const cases: readonly [() => Promise<unknown>, RegExp][] = [
    [() => convert(one, one), /one.qcow2' is the source, or part of its backing chain/],
    [
      () => convert(one, file('one.qcow2')),
      /one.qcow2' is the source, or part of its backing chain/,
    ],
    [() => convert(one, small), /small.qcow2': output file is smaller than input file/],
    [
      () => convert(one, file('x'), { from: 'qcow2' }),
      /one.qcow2' is open already: 'from' says how/,
    ],
    [() => convert(one, small, { to: 'qcow2' }), /small.qcow2' is open already: 'to' says how/],
    [() => convert([] as ConversionSource[], small), /at least one source/],
  ];
  for (const [attempt, message] of cases) {
    await assert.rejects(attempt(), { code: 'ERR_COWHERD_INVALID_ARGUMENT', message });
  }
  await writeFile(file('data.raw'), Buffer.alloc(512, 1));
  await using readOnly = await openImage(file('small.qcow2'), { readOnly: true, forceShare: true });
  await assert.rejects(convert(file('data.raw'), readOnly), { code: 'ERR_COWHERD_READ_ONLY' });
});
