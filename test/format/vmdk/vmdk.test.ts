/** Every kind of VMDK image that the real tools make, and those made by hand, read as QEMU reads them. */
import assert from 'node:assert/strict';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { openImage } from '../../../src/image/graph/open.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { type Grain, cowd, descriptor, diskOf, hosted, pattern, seSparse } from './builders.js';
import { type Compared, assertReads, assertReadsAsQemu } from './referee.js';

const vmdk: Compared = { format: 'vmdk', map: 'exact' };
const kib = 1024;
const mib = 1024 * kib;
const sector = 512;

/** Has qemu-io write data here and there, within the first 9 MiB, in no order. */
async function fill(file: string): Promise<void> {
  const commands = [
    'write -P 1 5M 200k',
    'write -P 2 0 64k',
    'write -P 3 64k 64k',
    'write -P 4 1000k 10k',
    'write -P 5 4M 128k',
    'write -P 6 3M 512',
    'write -P 7 8M 1M',
    'write -P 8 2M 700k',
  ];
  await runOk('qemu-io', ['-f', 'vmdk', ...commands.flatMap((command) => ['-c', command]), file]);
}

for (const subformat of ['monolithicSparse', 'twoGbMaxExtentSparse']) {
  test(`${subformat}, made and written to by QEMU`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.vmdk');
    await runOk('qemu-img', [
      ...['create', '-q', '-f', 'vmdk', '-o', `subformat=${subformat}`, file, '10000000'],
    ]);
    await fill(file);
    await assertReadsAsQemu(t, file, vmdk);
  });
}

for (const subformat of ['monolithicFlat', 'twoGbMaxExtentFlat', 'streamOptimized']) {
  test(`${subformat}, converted by QEMU`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const raw = path.join(folder, 'disk.raw');
    // The last grain is a partial one, and one in the middle is zeroes.
    const content = pattern(7, 5 * mib + 3 * sector);
    if (subformat === 'streamOptimized') content.fill(0, mib, mib + 300 * kib);
    await writeFile(raw, content);
    const file = path.join(folder, 'disk.vmdk');
    await runOk('qemu-img', [
      ...['convert', '-f', 'raw', '-O', 'vmdk', '-o', `subformat=${subformat}`, raw, file],
    ]);
    const read = await assertReadsAsQemu(t, file, vmdk);
    assert.ok(read.equals(content));
  });
}

test('grains that say that they are zeroes, by QEMU', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.vmdk');
  await runOk('qemu-img', ['create', '-q', '-f', 'vmdk', '-o', 'zeroed_grain=on', file, '10M']);
  await fill(file);
  await runOk('qemu-io', ['-f', 'vmdk', '-c', 'write -z 64k 192k', '-c', 'write -z 8M 1M', file]);
  await assertReadsAsQemu(t, file, vmdk);
  await using image = await openImage(file, { readOnly: true });
  const zeroes: number[] = [];
  for await (const { present, zero, length } of image.map())
    if (present && zero) zeroes.push(length);
  assert.deepEqual(zeroes, [192 * kib, mib]);
});

test('extents beyond 2 GiB, at their boundaries', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  for (const subformat of ['twoGbMaxExtentSparse', 'twoGbMaxExtentFlat']) {
    const file = path.join(folder, `${subformat}.vmdk`);
    await runOk('qemu-img', [
      ...['create', '-q', '-f', 'vmdk', '-o', `subformat=${subformat}`, file, '5G'],
    ]);
    await runOk('qemu-io', [
      ...['-f', 'vmdk', '-c', 'write -P 9 2047M 2M', '-c', 'write -P 10 4095M 2M', file],
    ]);
    await using image = await openImage(file, { format: 'vmdk', readOnly: true });
    assert.equal(image.size, 5 * kib * mib);
    for (const [boundary, byte] of [
      [2048 * mib, 9],
      [4096 * mib, 10],
    ]) {
      const buffer = Buffer.alloc(2 * mib + 2);
      await image.read(buffer, boundary - mib - 1);
      assert.deepEqual([buffer[0], buffer.at(-1)], [0, 0]);
      assert.ok(buffer.subarray(1, -1).every((each) => each === byte));
    }
    const { formatSpecific: specific } = await image.info();
    assert.ok(specific?.type === 'vmdk');
    assert.deepEqual(
      specific.extents.map(({ virtualSize }) => virtualSize),
      [2 * kib * mib, 2 * kib * mib, kib * mib],
    );
  }
});

/** Grains of every kind, in tables that are partly missing. */
function mixedGrains(count: number, grainBytes: number, withZeroed: boolean): Grain[] {
  return Array.from({ length: count }, (_, index) => {
    if (index >= 40 && index < 80) return undefined;
    if (index % 7 === 3) return undefined;
    if (withZeroed && index % 5 === 2) return 'zeroed';
    return pattern(index, grainBytes);
  });
}

for (const { version, withZeroed } of [
  { version: 1, withZeroed: false },
  { version: 2, withZeroed: true },
  { version: 3, withZeroed: false },
]) {
  test(`a hosted extent of version ${version}, with small tables and scattered grains`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.vmdk');
    const grains = mixedGrains(150, 4 * kib, withZeroed);
    const capacity = 150 * 8 - 3;
    for (const isReversed of [false, true]) {
      const bytes = hosted({
        ...{ capacity, grain: 8, grains, version, isReversed, tableEntries: 16 },
        hasZeroedGrains: withZeroed,
        descriptor: descriptor('monolithicSparse', [`RW ${capacity} SPARSE "disk.vmdk"`]),
      });
      await writeFile(file, bytes);
      const read = await assertReadsAsQemu(t, file, vmdk);
      assert.ok(read.equals(diskOf(grains, 4 * kib, capacity * sector)));
    }
  });
}

test('an entry 1 without the flag of zeroed grains is the place of a grain', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.vmdk');
  const text = descriptor('monolithicSparse', ['RW 32 SPARSE "disk.vmdk"']);
  const grains: Grain[] = [undefined, 'zeroed', pattern(1, 4 * kib)];
  await writeFile(file, hosted({ capacity: 32, grain: 8, grains, descriptor: text }));
  const read = await assertReadsAsQemu(t, file, vmdk);
  assert.equal(read.toString('latin1', 4 * kib, 4 * kib + 21), '# Disk DescriptorFile');
});

for (const { compression, hasFooter } of [
  { compression: 'marked', hasFooter: true },
  { compression: 'marked', hasFooter: false },
  { compression: 'unmarked', hasFooter: false },
] as const) {
  const where = hasFooter ? 'a footer' : 'no footer';
  test(`compressed grains, ${compression}, with ${where}, the last one whole`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const file = path.join(folder, 'disk.vmdk');
    const grains = mixedGrains(90, 8 * kib, true);
    // One of them does not get smaller.
    const noise = Buffer.from(pattern(3, 8 * kib).map((byte, at) => byte ^ (at * 181) ^ (at >> 3)));
    grains[5] = compression === 'marked' ? noise : grains[5];
    // The disk ends within the last grain, which is stored beyond its end.
    const capacity = 90 * 16 - 5;
    for (const isReversed of [false, true]) {
      const bytes = hosted({
        ...{ capacity, grain: 16, grains, compression, hasFooter, isReversed, tableEntries: 32 },
        hasZeroedGrains: true,
        descriptor: descriptor('streamOptimized', [`RW ${capacity} SPARSE "disk.vmdk"`]),
      });
      await writeFile(file, bytes);
      const read = await assertReadsAsQemu(t, file, vmdk);
      assert.ok(read.equals(diskOf(grains, 8 * kib, capacity * sector)));
    }
  });
}

test('flat extents with offsets, names in folders and absolute ones, and Windows’ line ends', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await mkdir(path.join(folder, 'parts'));
  const data = pattern(21, 100 * kib);
  await writeFile(path.join(folder, 'parts', 'täil 1.bin'), data);
  const absolute = path.join(folder, 'other.bin');
  await writeFile(absolute, pattern(22, 64 * kib));
  const lines = [
    'RW 100 FLAT "parts/täil 1.bin" 7',
    `RW 30 FLAT "${absolute}" 0`,
    'RW 60 FLAT "parts/täil 1.bin" 120',
  ];
  const file = path.join(folder, 'disk.vmdk');
  for (const text of [
    descriptor('twoGbMaxExtentFlat', lines),
    descriptor('monolithicFlat', lines).replaceAll('\n', '\r\n'),
  ]) {
    await writeFile(file, text);
    const read = await assertReadsAsQemu(t, file, vmdk);
    assert.ok(read.subarray(0, 100 * sector).equals(data.subarray(7 * sector, 107 * sector)));
  }
});

test('VMFS extents', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk-flat.vmdk'), pattern(31, 128 * kib));
  const file = path.join(folder, 'disk.vmdk');
  await writeFile(file, descriptor('vmfs', ['RW 256 VMFS "disk-flat.vmdk"']));
  await assertReadsAsQemu(t, file, vmdk);
});

for (const grain of [1, 128]) {
  test(`COWD extents with grains of ${grain} sectors`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const count = grain === 1 ? 9000 : 40;
    const grains = Array.from({ length: count }, (_, index) =>
      (index > 500 && index < 4200) || index % 11 === 4
        ? undefined
        : pattern(index, grain * sector),
    );
    const capacity = count * grain - (grain === 1 ? 0 : 9);
    await writeFile(path.join(folder, 'disk-delta.vmdk'), cowd(capacity, grain, grains));
    const file = path.join(folder, 'disk.vmdk');
    const line = `RW ${capacity} VMFSSPARSE "disk-delta.vmdk"`;
    await writeFile(file, descriptor('vmfsSparse', [line]));
    const read = await assertReadsAsQemu(t, file, vmdk);
    assert.ok(read.equals(diskOf(grains, grain * sector, capacity * sector)));
  });
}

test('SESparse extents', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const count = 4096 + 300;
  const grains = Array.from({ length: count }, (_, index) => {
    if (index > 60 && index < 4000) return undefined;
    if (index % 9 === 4) return 'unmapped';
    if (index % 9 === 5) return 'zeroed';
    return index % 9 === 6 ? undefined : pattern(index, 4 * kib);
  });
  const capacity = count * 8 - 3;
  const file = path.join(folder, 'disk.vmdk');
  const line = `RW ${capacity} SESPARSE "disk-sesparse.vmdk"`;
  await writeFile(file, descriptor('seSparse', [line]));
  // Also with numbers of more than 12 bits, whose parts an entry has in another order.
  for (const numberOf of [
    (order: number): number => order,
    (order: number): number => 4090 + ((order * 7) % 600),
  ]) {
    await writeFile(path.join(folder, 'disk-sesparse.vmdk'), seSparse(capacity, grains, numberOf));
    const read = await assertReadsAsQemu(t, file, vmdk);
    const known = grains.map((grain) => (grain instanceof Buffer ? grain : undefined));
    assert.ok(read.equals(diskOf(known, 4 * kib, capacity * sector)));
  }
});

test('several extents of different kinds', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const small = mixedGrains(100, 4 * kib, true);
  const stream = mixedGrains(30, 8 * kib, false);
  const own = { grain: 8, grains: small, hasZeroedGrains: true };
  await writeFile(path.join(folder, 'a.vmdk'), hosted({ ...own, capacity: 800 }));
  const compressed = { grain: 16, grains: stream, compression: 'marked' } as const;
  await writeFile(path.join(folder, 'b.vmdk'), hosted({ ...compressed, capacity: 480 }));
  await writeFile(path.join(folder, 'c.bin'), pattern(5, 20 * kib));
  await writeFile(path.join(folder, 'd.vmdk'), cowd(795, 8, small));
  const file = path.join(folder, 'disk.vmdk');
  const lines = [
    'RW 800 SPARSE "a.vmdk"',
    'RW 480 SPARSE "b.vmdk"',
    'RW 40 FLAT "c.bin" 0',
    'RW 795 VMFSSPARSE "d.vmdk"',
  ];
  await writeFile(file, descriptor('twoGbMaxExtentSparse', lines));
  await assertReadsAsQemu(t, file, vmdk);
  await using image = await openImage(file, { readOnly: true });
  assert.equal(image.clusterSize, undefined, 'they are not alike');
});

// Of the first QEMU reads the rest of the grain; the second's footer it looks for in the descriptor.
test('an extent that ends within a grain before others, and one that was written as a stream', async (t) => {
  const folder = await temporaryFolder(t);
  const grains = [pattern(1, 4 * kib), pattern(2, 4 * kib)];
  const stream = { grain: 8, grains, compression: 'marked', hasFooter: true } as const;
  await writeFile(path.join(folder, 'a.vmdk'), hosted({ capacity: 13, grain: 8, grains }));
  await writeFile(path.join(folder, 'b.vmdk'), hosted({ ...stream, capacity: 11 }));
  await writeFile(path.join(folder, 'c.bin'), pattern(3, 8 * kib));
  const lines = ['RW 13 SPARSE "a.vmdk"', 'RW 11 SPARSE "b.vmdk"', 'RW 16 FLAT "c.bin" 0'];
  const file = path.join(folder, 'disk.vmdk');
  await writeFile(file, descriptor('twoGbMaxExtentSparse', lines));
  const whole = Buffer.concat(grains);
  const parts = [whole.subarray(0, 13 * sector), whole.subarray(0, 11 * sector)];
  await assertReads(t, file, Buffer.concat([...parts, pattern(3, 8 * kib)]), vmdk);
});

test('a descriptor that is wrapped in an extent of nothing', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'data.bin'), pattern(9, 32 * kib));
  const file = path.join(folder, 'disk.vmdk');
  const text = descriptor('monolithicFlat', ['RW 64 FLAT "data.bin" 0']);
  await writeFile(file, hosted({ capacity: 0, grain: 128, grains: [], descriptor: text }));
  await assertReadsAsQemu(t, file, vmdk);
});

test('a sparse extent without a descriptor, which QEMU does not open', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk-s001.vmdk');
  const grains = mixedGrains(60, 4 * kib, false);
  await writeFile(file, hosted({ capacity: 480, grain: 8, grains }));
  await assertReads(t, file, diskOf(grains, 4 * kib, 480 * sector), vmdk);
  // As QEMU makes them: with room for a descriptor, and none in it.
  await writeFile(file, hosted({ capacity: 480, grain: 8, grains, descriptor: '' }));
  await assertReads(t, file, diskOf(grains, 4 * kib, 480 * sector), vmdk);
});

test('extents of zeroes, and those that may only be read, which QEMU passes over', async (t) => {
  const folder = await temporaryFolder(t);
  const data = pattern(41, 64 * kib);
  await writeFile(path.join(folder, 'data.bin'), data);
  const file = path.join(folder, 'disk.vmdk');
  const lines = [
    'RW 10 FLAT "data.bin" 0',
    'RW 1000 ZERO',
    'RDONLY 20 FLAT "data.bin" 10',
    'RW 0 FLAT "data.bin" 10',
    'RW 5 ZERO "" 0',
  ];
  await writeFile(file, descriptor('monolithicFlat', lines));
  const expected = Buffer.alloc(1035 * sector);
  data.copy(expected, 0, 0, 10 * sector);
  data.copy(expected, 1010 * sector, 10 * sector, 30 * sector);
  await assertReads(t, file, expected, vmdk);
});

test('an image below, which shows where nothing is stored', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const base = path.join(folder, 'base.vmdk');
  const file = path.join(folder, 'disk.vmdk');
  await runOk('qemu-img', ['create', '-q', '-f', 'vmdk', base, '10M']);
  await fill(base);
  await runOk('qemu-img', [
    ...['create', '-q', '-f', 'vmdk', '-o', 'zeroed_grain=on', '-F', 'vmdk', '-b', base, file],
  ]);
  await runOk('qemu-io', [
    '-f',
    'vmdk',
    '-c',
    'write -P 77 64k 100k',
    '-c',
    'write -z 8M 512k',
    file,
  ]);
  await assertReadsAsQemu(t, file, vmdk);
  await using image = await openImage(file, { readOnly: true });
  assert.equal(image.backing?.format, 'vmdk');
});

test('a parent of the identity that means none is none', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.vmdk');
  const hint = 'parentFileNameHint="missing.vmdk"';
  const text = descriptor('monolithicSparse', ['RW 32 SPARSE "disk.vmdk"'], [hint]);
  await writeFile(file, hosted({ capacity: 32, grain: 8, grains: [], descriptor: text }));
  await using image = await openImage(file, { readOnly: true });
  assert.equal(image.backing, undefined);
  await writeFile(file, (await readFile(file, 'latin1')).replace('ffffffff', '0badcafe'), 'latin1');
  await assert.rejects(openImage(file, { readOnly: true }), /missing\.vmdk/);
});

test('what is told of an image is what QEMU tells', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const subformat of [
    'monolithicSparse',
    'monolithicFlat',
    'twoGbMaxExtentSparse',
    'twoGbMaxExtentFlat',
    'streamOptimized',
  ]) {
    const file = path.join(folder, `${subformat}.vmdk`);
    await runOk('qemu-img', [
      ...['create', '-q', '-f', 'vmdk', '-o', `subformat=${subformat}`, file, '10M'],
    ]);
    const text = await runOk('qemu-img', ['info', '--output=json', file]);
    const expected = JSON.parse(text) as {
      'cluster-size'?: number;
      'format-specific': { data: { extents: unknown[] } & Record<string, unknown> };
    };
    await using image = await openImage(file, { readOnly: true });
    const { clusterSize, formatSpecific: specific } = await image.info();
    assert.equal(clusterSize, expected['cluster-size']);
    assert.ok(specific?.type === 'vmdk');
    const { type, extents, ...facts } = specific;
    assert.equal(type, 'vmdk');
    const named = (value: object): string =>
      // The order of members counts too.
      JSON.stringify(value).replace(/([a-z])([A-Z])(?=[a-z]*":)/g, (_, a: string, b: string) => {
        return `${a}-${b.toLowerCase()}`;
      });
    const { extents: expectedExtents, ...expectedFacts } = expected['format-specific'].data;
    assert.equal(named(facts), JSON.stringify(expectedFacts));
    assert.equal(named(extents), JSON.stringify(expectedExtents));
  }
});

test('a file of the image that has gone is named', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.vmdk');
  await runOk('qemu-img', [
    ...['create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', file, '1M'],
  ]);
  await rename(path.join(folder, 'disk-flat.vmdk'), path.join(folder, 'elsewhere'));
  await assert.rejects(openImage(file, { readOnly: true }), /disk-flat\.vmdk/);
});
