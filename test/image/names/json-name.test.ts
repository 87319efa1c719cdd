/** Backing files by `json:` names: of files they are opened as QEMU opens them, others are refused. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { CowherdError } from '../../../src/errors.js';
import { parseJsonName } from '../../../src/image/names/json-name.js';
import { convert } from '../../../src/jobs/convert.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

test('a name says a file and its format, with no other option', () => {
  const file = { driver: 'file', filename: '/a' };
  for (const [options, expected] of [
    [
      { driver: 'qcow2', file },
      { path: '/a', format: 'qcow2' },
    ],
    [
      { driver: 'raw', 'file.driver': 'host_device', 'file.filename': '/a' },
      { path: '/a', format: 'raw' },
    ],
    [{ file: { filename: '/a' } }, { path: '/a', format: undefined }],
    [file, { path: '/a', format: 'raw' }],
    [{ driver: 'raw', offset: 512, file }, undefined],
    [
      { driver: 'vmdk', file },
      { path: '/a', format: 'vmdk' },
    ],
    [{ driver: 'luks', file }, undefined],
    // An image may be anybody's, and a trace writes to files.
    [{ driver: 'raw', file: { driver: 'trace', output: '/b', file } }, undefined],
    [{ driver: 'trace', file }, undefined],
    [{ driver: 'qcow2', file: { driver: 'nbd', host: 'a' } }, undefined],
    [{ driver: 'qcow2', file: 'node' }, undefined],
    [{ driver: 'qcow2', file, backing: null }, undefined],
    [{ driver: 'file', filename: 5 }, undefined],
    [['file'], undefined],
    [null, undefined],
  ] as const) {
    assert.deepEqual(parseJsonName(`json:${JSON.stringify(options)}`), expected);
  }
  assert.equal(parseJsonName('json:{'), undefined);
});

test('an image above such a name reads as with qemu-img', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const base = path.join(folder, 'base.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', base, '1M']);
  await runOk('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 7 64k 128k', base]);
  for (const [index, options] of [
    { driver: 'qcow2', file: { driver: 'file', filename: base } },
    { 'file.filename': base },
    { driver: 'raw', file: { filename: base } },
  ].entries()) {
    const image = path.join(folder, `${index}.qcow2`);
    const name = `json:${JSON.stringify(options)}`;
    const format = options.driver === 'raw' ? 'raw' : 'qcow2';
    const words = ['create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', format, image, '1M'];
    await runOk('qemu-img', words);
    await runOk('qemu-img', ['convert', '-O', 'raw', image, `${image}.theirs`]);
    await convert(image, `${image}.ours`);
    const [ours, theirs] = [await readFile(`${image}.ours`), await readFile(`${image}.theirs`)];
    assert.ok(ours.equals(theirs), name);
  }
  const image = path.join(folder, 'other.qcow2');
  const name = `json:${JSON.stringify({ driver: 'raw', offset: 512, file: { filename: base } })}`;
  await runOk('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-u',
    '-b',
    name,
    '-F',
    'raw',
    image,
    '1M',
  ]);
  await assert.rejects(
    convert(image, `${image}.ours`),
    (error) => error instanceof CowherdError && error.code === 'ERR_COWHERD_UNSUPPORTED',
  );
});
