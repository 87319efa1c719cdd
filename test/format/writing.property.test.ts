/**
 * Images of the formats that are written besides qcow2: made, written to at random and read back, against a
 * model and the real tools.
 */
import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { CreateOptions } from '../../src/image/api/options.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { assertSame, runCowherd, runQemuImg } from '../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../support/tools.js';

const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 5);
const kib = 1024;
const mib = 1024 * kib;

/** Kinds of images that are written at random. */
const kinds: readonly (readonly [format: string, options: CreateOptions])[] = [
  ['vdi', {}],
  ['vdi', { static: true }],
  ['vpc', { forceSize: true }],
  ['vpc', { subformat: 'fixed', forceSize: true }],
  ['qed', {}],
  ['qed', { clusterSize: 4096, tableSize: 2 }],
  ['vmdk', {}],
];

type Request =
  | { readonly kind: 'write'; readonly at: number; readonly length: number; readonly fill: number }
  | { readonly kind: 'zero'; readonly at: number; readonly length: number; readonly unmap: boolean }
  | { readonly kind: 'discard' | 'read'; readonly at: number; readonly length: number }
  | { readonly kind: 'flush' | 'reopen'; readonly at?: undefined };

function requests(size: number): fc.Arbitrary<Request[]> {
  const place = {
    at: fc.nat(size / 512 - 1).map((sector) => sector * 512),
    length: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 3000 })),
  };
  const range = fc.record(place).map(({ at, length }) => ({
    at,
    length: Math.min(length * 512, size - at),
  }));
  const filled = fc.tuple(range, fc.integer({ min: 1, max: 255 }));
  const zeroed = fc.tuple(range, fc.boolean());
  const request = fc.oneof(
    {
      arbitrary: filled.map(([each, fill]): Request => ({ kind: 'write', ...each, fill })),
      weight: 6,
    },
    {
      arbitrary: zeroed.map(([each, unmap]): Request => ({ kind: 'zero', ...each, unmap })),
      weight: 2,
    },
    { arbitrary: range.map((each): Request => ({ kind: 'discard', ...each })), weight: 1 },
    { arbitrary: range.map((each): Request => ({ kind: 'read', ...each })), weight: 2 },
    {
      arbitrary: fc.constantFrom<Request>({ kind: 'flush' }, { kind: 'reopen' }),
      weight: 1,
    },
  );
  return fc.array(request, { minLength: 1, maxLength: 25 });
}

/** Does the requests, some of them at once; the model says what has to be read afterwards. */
async function perform(
  file: string,
  format: string,
  drawn: readonly Request[],
  model: Buffer,
): Promise<void> {
  let image = await openImage(file, { format });
  try {
    let underWay: Promise<void>[] = [];
    let used: [number, number][] = [];
    const settle = async (): Promise<void> => {
      await Promise.all(underWay);
      underWay = [];
      used = [];
    };
    for (const request of drawn) {
      if (request.at === undefined) {
        await settle();
        await image.flush();
        if (request.kind === 'flush') continue;
        await image.close();
        image = await openImage(file, { format });
        continue;
      }
      const { at, length } = request;
      // What overlaps something under way has no order.
      if (used.some(([from, to]) => at < to && from < at + length)) await settle();
      used.push([at, at + length]);
      if (request.kind === 'write') {
        model.fill(request.fill, at, at + length);
        underWay.push(image.write(new Uint8Array(length).fill(request.fill), at));
      } else if (request.kind === 'zero') {
        model.fill(0, at, at + length);
        underWay.push(image.writeZeroes(at, length, { unmap: request.unmap }));
      } else if (request.kind === 'discard') {
        // Nothing is promised of it but that it harms nothing else.
        await settle();
        await image.discard(at, length);
        await image.read(model.subarray(at, at + length), at);
      } else {
        await settle();
        const bytes = Buffer.alloc(length);
        await image.read(bytes, at);
        assert.equal(Buffer.compare(bytes, model.subarray(at, at + length)), 0);
      }
    }
    await settle();
  } finally {
    await image.close();
  }
}

for (const [format, options] of kinds) {
  test(`random writes: ${format} ${JSON.stringify(options)}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await temporaryFolder(t);
    const size = 5 * mib + 512 * 3;
    const disk = format === 'vpc' && options.subformat === 'fixed' ? 6 * mib : size;
    let run = 0;
    await fc.assert(
      fc.asyncProperty(requests(size), async (drawn) => {
        const name = `disk${run++}`;
        const file = path.join(folder, name);
        await createImage(file, { ...options, format, size });
        const model = Buffer.alloc(disk);
        await perform(file, format, drawn, model);
        await writeFile(path.join(folder, 'expected.raw'), model);
        await runOk('qemu-img', ['compare', '-f', format, '-F', 'raw', name, 'expected.raw'], {
          cwd: folder,
        });
        const check = await runQemuImg(['check', '-f', format, name], folder);
        // 63: the format has no check.
        assert.ok([0, 63].includes(check.code), check.stdout + check.stderr);
        const ours = await runCowherd(['check', '-f', format, name], folder);
        assert.deepEqual([ours.code, ours.stdout], [check.code, check.stdout], ours.stderr);
      }),
      { numRuns: runs },
    );
  });
}

test('zeroes and writes above a backing file, in QED', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const base = Buffer.alloc(mib + 777 * 512, 0xaa);
  await writeFile(path.join(folder, 'base.raw'), base);
  const size = 2 * mib;
  const file = path.join(folder, 'top.qed');
  const below = { backingFile: 'base.raw', backingFormat: 'raw' };
  await fc.assert(
    fc.asyncProperty(requests(size), async (drawn) => {
      await createImage(file, { format: 'qed', size, ...below });
      const model = Buffer.concat([base, Buffer.alloc(size - base.length)]);
      await perform(file, 'qed', drawn, model);
      await writeFile(path.join(folder, 'expected.raw'), model);
      await runOk('qemu-img', ['compare', '-F', 'raw', 'top.qed', 'expected.raw'], { cwd: folder });
      await runOk('qemu-img', ['check', 'top.qed'], { cwd: folder });
    }),
    {
      numRuns: runs,
      examples: [
        [
          [
            { kind: 'zero', at: 0, length: 64 * kib, unmap: false },
            { kind: 'write', at: 512, length: 512, fill: 1 },
          ],
        ],
      ],
    },
  );
});

/** A raw disk with data, zeroes and text, whose length is no round number. */
async function makeSource(t: TestContext, length: number): Promise<string> {
  const folder = await temporaryFolder(t);
  const bytes = Uint8Array.from({ length }, (_, at) =>
    (at >> 18) % 3 === 0 ? 0 : (at * 7 + (at >> 9)) & 0xff,
  );
  await writeFile(path.join(folder, 'source.raw'), bytes);
  return folder;
}

for (const [format, ...options] of [
  ['vdi'],
  ['vdi', 'static=on'],
  ['vpc'],
  ['vpc', 'subformat=fixed'],
  ['vpc', 'subformat=fixed,force_size=on'],
  ['vpc', 'force_size=on'],
  ['qed'],
  ['qed', 'cluster_size=4096,table_size=2'],
  ['vmdk'],
  ['vmdk', 'adapter_type=lsilogic,hwversion=13'],
  ['vmdk', 'subformat=streamOptimized'],
  ['vmdk', 'subformat=monolithicFlat'],
  ['vmdk', 'subformat=twoGbMaxExtentFlat'],
  ['vmdk', 'subformat=twoGbMaxExtentSparse,zeroed_grain=on'],
] as const) {
  test(`conversion into ${format} ${options.join('')}`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    const folder = await makeSource(t, 9 * mib + 5 * 512);
    const list = options.length > 0 ? ['-o', ...options] : [];
    for (const words of [
      ['convert', '-W', '-m', '8', '-O', format, ...list, 'source.raw', 'out'],
      ['convert', '-S', '0', '-O', format, ...list, 'source.raw', 'out'],
    ]) {
      const { code, stderr } = await runCowherd(words, folder);
      assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
      await runOk('qemu-img', ['compare', '-F', format, 'source.raw', 'out'], { cwd: folder });
      const check = await runQemuImg(['check', '-f', format, 'out'], folder);
      assert.ok([0, 63].includes(check.code), check.stdout + check.stderr);
      // And back again.
      const back = await runCowherd(
        ['convert', '-f', format, '-O', 'qcow2', 'out', 'back'],
        folder,
      );
      assert.equal(back.code, 0, back.stderr);
      await runOk('qemu-img', ['compare', 'source.raw', 'back'], { cwd: folder });
    }
  });
}

test('new images are announced and described as the real tool does', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const [format, ...options] of [
    ['vdi'],
    ['vdi', '-o', 'static=on'],
    ['vpc'],
    ['vpc', '-o', 'subformat=fixed'],
    ['qed'],
    ['qed', '-o', 'cluster_size=8k,table_size=8'],
    ['vmdk'],
    ['vmdk', '-o', 'adapter_type=buslogic,compat6=on'],
    ['vmdk', '-o', 'subformat=monolithicFlat'],
    ['vmdk', '-o', 'subformat=twoGbMaxExtentSparse,toolsversion=7,zeroed_grain=on'],
  ]) {
    for (const size of ['10M', '5G', '1000']) {
      await assertSame(['create', '-f', format, ...options, 'disk', size], folder);
      const sizes: string[] = [];
      for (const make of [runCowherd, runQemuImg]) {
        await make(['create', '-q', '-f', format, ...options, 'disk', size], folder);
        const { stdout } = await runQemuImg(['info', '-f', format, 'disk'], folder);
        sizes.push(stdout.split('\n').slice(1, 3).join());
      }
      assert.equal(sizes[0], sizes[1], `${format} ${options.join(' ')} ${size}`);
    }
  }
});

test('what cannot be made or written is refused in one line, and leaves nothing', async (t) => {
  const folder = await makeSource(t, mib);
  for (const [words, expected] of [
    [['create', '-f', 'vmdk', '-o', 'subformat=odd', 'x', '1M'], /invalid parameter value: odd/],
    [['create', '-f', 'vmdk', '-o', 'adapter_type=odd', 'x', '1M'], /invalid parameter value: odd/],
    [
      ['create', '-f', 'vmdk', '-o', 'subformat=monolithicFlat,zeroed_grain=on', 'x', '1M'],
      /Flat image can't enable zeroed grain/,
    ],
    [['create', '-f', 'vmdk', '-b', 'source.raw', '-F', 'raw', 'x', '1M'], /Backing file not supp/],
    [['create', '-f', 'vpc', '-o', 'subformat=nonsense', 'x', '1M'], /Invalid subformat/],
    [['create', '-f', 'vpc', 'x', '3T'], /too large/],
    [['create', '-f', 'qed', '-o', 'cluster_size=1000', 'x', '1M'], /cluster size/],
    [['create', '-f', 'qed', '-o', 'table_size=3', 'x', '1M'], /table size/],
    [['create', '-f', 'vdi', '-o', 'nonsense=1', 'x', '1M'], /Invalid parameter 'nonsense'/],
    [['create', '-f', 'dmg', 'x', '1M'], /does not support image creation/],
    [['convert', '-c', '-O', 'vdi', 'source.raw', 'x'], /Compression not supported/],
    [['convert', '-O', 'parallels', 'source.raw', 'x'], /does not support image creation/],
  ] as const) {
    const { code, stderr } = await runCowherd(words, folder);
    assert.equal(code, 1, words.join(' '));
    assert.match(stderr, expected);
    assert.match(stderr, /^cowherd: [^\n]*\n$/);
    await assert.rejects(stat(path.join(folder, 'x')), { code: 'ENOENT' });
  }
  const stream = path.join(folder, 'stream');
  await runCowherd(
    ['convert', '-O', 'vmdk', '-o', 'subformat=streamOptimized', 'source.raw', 'stream'],
    folder,
  );
  const before = await readFile(stream);
  await assert.rejects(openImage(stream), {
    code: 'ERR_COWHERD_UNSUPPORTED',
    message: /written once/,
  });
  assert.equal(Buffer.compare(await readFile(stream), before), 0);
  const image = await openImage(path.join(folder, 'source.raw'));
  await image.close();
  await createImage(path.join(folder, 'one.vdi'), { format: 'vdi', size: mib });
  const written = await openImage(path.join(folder, 'one.vdi'));
  assert.throws(() => written.handle(), { code: 'ERR_COWHERD_UNSUPPORTED' });
  await written.close();
});
