/** Names of images: paths, URLs, `json:` names and lists of options, and images that have such names inside. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import type { CowherdError } from '../../../src/errors.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';
import {
  type NameUse,
  specificationOf,
  specificationOfOptions,
} from '../../../src/image/names/specification.js';
import * as references from '../../../src/image/names/reference.js';
import { compare } from '../../../src/jobs/compare.js';
import { convert } from '../../../src/jobs/convert.js';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

const file = { driver: 'file', filename: '/a' };
const asJson = (options: unknown): string => `json:${JSON.stringify(options)}`;

test('a name that is no list of options is the path or URL itself', () => {
  for (const name of ['/a', 'a=b', 'https://a/b', 's3://a/b', 'driver=raw']) {
    assert.deepEqual(specificationOf(name), { path: name, format: undefined, settings: {} });
  }
});

test('a name says a file, its format, and how they are opened', () => {
  for (const [options, expected] of [
    [{ driver: 'qcow2', file }, { format: 'qcow2' }],
    [{ driver: 'raw', 'file.driver': 'host_device', 'file.filename': '/a' }, { format: 'raw' }],
    [{ file: { filename: '/a' } }, {}],
    [file, { format: 'raw' }],
    [
      { driver: 'raw', offset: 512, size: '1k', file },
      { format: 'raw', settings: { window: { offset: 512, size: 1024 } } },
    ],
    [
      { driver: 'qcow2', file, backing: null },
      { format: 'qcow2', settings: { backing: 'ignore' } },
    ],
    [
      { driver: 'qcow2', file: { ...file, aio: 'native', locking: 'off' }, 'lazy-refcounts': true },
      { format: 'qcow2', settings: { aio: 'auto', locking: 'off', lazyRefcounts: true } },
    ],
    [
      { driver: 'qcow2', file, backing: { driver: 'raw', file: { filename: '/b' } } },
      { format: 'qcow2', settings: { backingFile: '/b', backingFormat: 'raw' } },
    ],
    [
      { driver: 'qcow2', file, backing: { driver: 'raw', offset: 512, file: { filename: '/b' } } },
      {
        format: 'qcow2',
        settings: {
          backingFile: asJson({ driver: 'raw', offset: '512', 'file.filename': '/b' }),
          backingFormat: 'raw',
        },
      },
    ],
    [
      { driver: 'qcow2', file, 'data-file': { driver: 'file', filename: '/b' } },
      { format: 'qcow2', settings: { dataFile: '/b' } },
    ],
    [
      { driver: 'vmdk', file: { driver: 'https', url: 'https://a/b', sslverify: false } },
      { path: 'https://a/b', format: 'vmdk', settings: { http: { verifyCertificate: false } } },
    ],
    [
      { driver: 'raw', file: { driver: 'trace', output: '/b', file } },
      {
        format: 'raw',
        settings: {
          filters: [{ name: 'trace', output: '/b' }],
          fullName:
            'json:{"driver": "raw", "file": {"driver": "trace", "output": "/b", "file": {"driver": "file", "filename": "/a"}}}',
        },
      },
    ],
    [
      { driver: 'raw', file: { driver: 'blkdebug', config: '/b', image: file } },
      { format: 'raw', settings: { filters: [{ name: 'blkdebug', config: '/b' }] } },
    ],
  ] as const) {
    const whole = { ...{ path: '/a', format: undefined, settings: {} }, ...expected };
    assert.deepEqual(specificationOf(asJson(options)), whole, JSON.stringify(options));
  }
});

test('a list of options and JSON with the same options are the same', () => {
  const values = new Map([
    ['driver', 'qcow2'],
    ['file.filename', '/a'],
    ['overlap-check', 'all'],
    ['backing.file.filename', '/b'],
  ]);
  const json = asJson({
    driver: 'qcow2',
    file: { filename: '/a' },
    'overlap-check': 'all',
    backing: { file: { filename: '/b' } },
  });
  assert.deepEqual(specificationOfOptions('a list', values), specificationOf(json));
});

test('strings of a name may stand between single quotes', () => {
  const given = `json:{'driver': "qcow2", 'file': {'filename': '/a "b" it\\'s \\\\'}}`;
  const { path } = specificationOf(given);
  assert.equal(path, '/a "b" it\'s \\');
  assert.throws(() => specificationOf("json:{'driver: 'qcow2'}"), /Could not parse the JSON/);
});

test('what a name says and cannot be done is refused in a line that names it', () => {
  const stored = { isStored: true };
  const writing = { forWriting: true };
  for (const [name, reason, use] of [
    ['json:{', /Could not parse the JSON options/],
    ['json:[]', /Could not parse the JSON options/],
    ['json:null', /Could not parse the JSON options/],
    [asJson({ driver: 'ploop', file }), /Unknown driver 'ploop'/],
    [asJson({ driver: 'qcow2', file: { driver: 'ssh', host: 'a' } }), /Unknown driver 'ssh'/],
    [asJson({ driver: 'qcow2', file: 'node' }), /must be specified for "file"/],
    [asJson({ driver: 'file', filename: null }), /'filename' of the name has no value/],
    [asJson({ driver: 'raw', offset: 'x', file }), /'offset' expects a size/],
    [asJson({ driver: 'raw', lazy: true, file }), /'raw' does not support the option 'lazy'/],
    [asJson({ driver: 'raw', 'lazy-refcounts': true, file }), /does not support the option/],
    [asJson({ driver: 'raw', 'force-share': true, file }), /only be used with read-only/, writing],
    [asJson({ driver: 'raw', file: { driver: 'trace', file } }), /filter 'trace'/, stored],
    [asJson({ driver: 'trace', file }), /filter 'trace'/, stored],
    [
      asJson({ driver: 'qcow2', file, backing: { driver: 'trace', file } }),
      /filter 'trace'/,
      stored,
    ],
  ] as const satisfies readonly (readonly [string, RegExp, NameUse?])[]) {
    assert.throws(
      () => specificationOf(name, use),
      (error: CowherdError) => {
        assert.equal(error.code, 'ERR_COWHERD_INVALID_ARGUMENT');
        assert.ok(error.message.startsWith(`Could not open '${name}': `), error.message);
        assert.match(error.message, reason);
        return true;
      },
    );
  }
});

test('such names are opened, made over, converted and compared like paths', async (t) => {
  const folder = await temporaryFolder(t);
  const disk = path.join(folder, 'disk.raw');
  await createImage(disk, { format: 'raw', size: '1M' });
  {
    await using image = await openImage(disk, { format: 'raw' });
    await image.write(new Uint8Array(1024).fill(5), 512);
  }
  const part = asJson({ driver: 'raw', offset: 512, size: 2048, file: { filename: disk } });
  {
    await using opened = await openImage(part, { readOnly: true });
    assert.equal(opened.size, 2048);
    const bytes = new Uint8Array(1024);
    await opened.read(bytes, 0);
    assert.ok(bytes.every((byte) => byte === 5));
  }
  const over = path.join(folder, 'over.qcow2');
  await createImage(over, { format: 'qcow2', backingFile: part, backingFormat: 'raw' });
  const copy = path.join(folder, 'copy.raw');
  await convert(part, copy);
  assert.equal((await compare(part, over)).identical, true);
  assert.equal((await compare(copy, over)).identical, true);
  await assert.rejects(openImage(part, { format: 'qcow2', readOnly: true }), {
    code: 'ERR_COWHERD_INVALID_ARGUMENT',
    message: /the name says the format raw, and the options say qcow2/,
  });
});

test('an image above such a name reads as with qemu-img', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const base = path.join(folder, 'base.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', base, '1M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 7 64k 128k', base]);
  const middle = path.join(folder, 'middle.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', middle, '1M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 8 32k 64k', middle]);
  for (const [index, options] of [
    { driver: 'qcow2', file: { driver: 'file', filename: base } },
    { 'file.filename': base },
    { driver: 'raw', file: { filename: base } },
    { driver: 'raw', offset: 512, file: { filename: base } },
    { driver: 'qcow2', file: { filename: base, 'cache.direct': false }, 'read-only': true },
    {
      driver: 'qcow2',
      file: { filename: middle },
      backing: { driver: 'qcow2', file: { filename: base } },
    },
    {
      driver: 'qcow2',
      file: { filename: middle },
      backing: { driver: 'raw', offset: 1024, size: 65536, file: { filename: base } },
    },
  ].entries()) {
    const image = path.join(folder, `${index}.qcow2`);
    const name = asJson(options);
    const format = options.driver === 'raw' ? 'raw' : 'qcow2';
    const words = ['create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', format, image, '1M'];
    await runOk('qemu-img', words);
    await runOk('qemu-img', ['convert', '-O', 'raw', image, `${image}.theirs`]);
    await convert(image, `${image}.ours`);
    const [ours, theirs] = [await readFile(`${image}.ours`), await readFile(`${image}.theirs`)];
    assert.ok(ours.equals(theirs), name);
  }
});

test('an image cannot have a filter put over a file', async (t) => {
  const folder = await temporaryFolder(t);
  const base = path.join(folder, 'base.raw');
  await createImage(base, { format: 'raw', size: '1M' });
  const output = path.join(folder, 'written');
  const filtered = { driver: 'trace', output, file: { filename: base } };
  const image = path.join(folder, 'image.qcow2');
  await createImage(image, {
    format: 'qcow2',
    size: '1M',
    backingFile: asJson({ driver: 'raw', file: filtered }),
    backingFormat: 'raw',
    backingUnchecked: true,
  });
  await assert.rejects(openImage(image, { readOnly: true }), {
    message: /Could not open backing file: .*the filter 'trace' cannot be part of a name/,
  });
  await assert.rejects(readFile(output), { code: 'ENOENT' });
});

test('what takes the place of a backing file has the format that the image says, and is not probed', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const looksLikeQcow2 = path.join(folder, 'below');
  await createImage(looksLikeQcow2, { format: 'qcow2', size: '1M' });
  const top = path.join(folder, 'top.qcow2');
  const words = ['create', '-q', '-f', 'qcow2', '-u', '-b', 'other', '-F', 'raw', top, '1M'];
  await runOk('qemu-img', words);
  const list = `driver=qcow2,file.filename=${top},backing.file.filename=${looksLikeQcow2}`;
  const theirs = path.join(folder, 'theirs');
  await runOk('qemu-img', ['convert', '--image-opts', '-O', 'raw', list, theirs]);
  const name = asJson({
    driver: 'qcow2',
    file: { filename: top },
    backing: { file: { filename: looksLikeQcow2 } },
  });
  assert.equal((await compare(name, theirs, { formatB: 'raw' })).identical, true);
});

test('a stored name with file: in front is relative to the working directory, as in QEMU', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const top = path.join(folder, 'top.qcow2');
  await createImage(path.join(folder, 'beside'), { format: 'raw', size: '1M' });
  const words = ['create', '-q', '-f', 'qcow2', '-u', '-b', 'file:beside', '-F', 'raw', top, '1M'];
  await runOk('qemu-img', words);
  await assert.rejects(openImage(top, { readOnly: true }), { code: 'ERR_COWHERD_NOT_FOUND' });
  const absolute = path.join(folder, 'absolute.qcow2');
  const name = `file:${path.join(folder, 'beside')}`;
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', name, '-F', 'raw', absolute]);
  await using image = await openImage(absolute, { readOnly: true });
  assert.equal(image.backing?.filename, path.join(folder, 'beside'));
});

test('a part of a file tells how long the whole is, and what that occupies', async (t) => {
  const file = path.join(await temporaryFolder(t), 'disk.raw');
  await createImage(file, { format: 'raw', size: '1M', preallocation: 'full' });
  await using whole = await openImage(file, { format: 'raw', readOnly: true });
  const window = { offset: 513, size: 1024 };
  await using part = await openImage(file, { format: 'raw', readOnly: true, window });
  const { virtualSize, fileLength, actualSize } = await part.info();
  assert.equal(virtualSize, 1024);
  assert.equal(fileLength, 1024 * 1024);
  assert.equal(actualSize, (await whole.info()).actualSize);
});

test('an image that is there is a target by its options too', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const cwd = await temporaryFolder(t);
  await createImage(path.join(cwd, 'from.raw'), { format: 'raw', size: '1M' });
  await createImage(path.join(cwd, 'to.qcow2'), { format: 'qcow2', size: '1M' });
  const target = asJson({ driver: 'qcow2', file: { filename: 'to.qcow2' } });
  const words = ['convert', '-n', '-O', 'qcow2', 'from.raw', target];
  const theirs = await run('qemu-img', words, { cwd });
  const ours = await runCowherd(words, cwd);
  assert.deepEqual([ours.code, ours.stderr], [0, '']);
  assert.equal(theirs.code, 0);
});

test('a stored format that a file is not of is named, and is no option of the caller', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const top = path.join(folder, 'top.qcow2');
  await createImage(path.join(folder, 'below'), { format: 'raw', size: '1M' });
  const words = ['create', '-q', '-f', 'qcow2', '-u', '-b', 'below', '-F', 'luks', top, '1M'];
  await runOk('qemu-img', words);
  await assert.rejects(openImage(top, { readOnly: true }), {
    code: 'ERR_COWHERD_INVALID_IMAGE',
    message: /^Could not open backing file: .*: Volume is not in LUKS format$/,
  });
});

test('a name in an image has no filter that reaches out, however deep it lies', () => {
  const trace = { driver: 'trace', output: '/tmp/lines', file };
  const hidden = `nested:${asJson({ driver: 'raw', file: trace })}`;
  for (const name of [
    asJson({ driver: 'qcow2', file: trace }),
    asJson({ driver: 'qcow2', file: { driver: 'raw', file: trace } }),
    asJson({ driver: 'qcow2', file: { driver: 'qcow2', file: { driver: 'raw', file: trace } } }),
    asJson({ driver: 'qcow2', file: { filename: hidden } }),
    asJson({ driver: 'qcow2', file, backing: { driver: 'raw', file: trace } }),
    asJson({ driver: 'qcow2', file, 'data-file': trace }),
    asJson({ driver: 'quorum', 'vote-threshold': 1, children: [file] }),
    'blkdebug:/etc/passwd:/a',
    'blkverify:/b:/a',
    asJson({ driver: 'raw', file: { driver: 'blkdebug', config: '/etc/passwd', image: file } }),
  ]) {
    assert.throws(
      () => specificationOf(name, { isStored: true }),
      /in an image|part of a name/,
      name,
    );
  }
  for (const base of ['resolveReference', 'dataFilePath'] as const) {
    assert.throws(() => references[base]('/disk', hidden), /names are not supported/);
  }
  const harmless = { driver: 'blkdebug', image: file, 'inject-error': [{ event: 'l2_load' }] };
  const stored = specificationOf(asJson({ driver: 'qcow2', file: harmless }), { isStored: true });
  assert.equal(stored.path, '/a');
});
