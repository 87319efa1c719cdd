/** Messages keep to their line, whatever an image or a person calls a file. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { CowherdError, nameMemoryError, printable } from '../src/errors.js';
import { createImage, openImage } from '../src/index.js';
import { temporaryFolder } from './support/tools.js';

test('printable escapes control characters and nothing else', () => {
  assert.equal(printable('a\nb\x1b[2J\x7fé %\\'), 'a\\nb\\x1b[2J\\x7fé %\\');
});

test('a message names the file escaped, and keeps lines of its own', () => {
  const details = { filename: 'a\nb' };
  const { message, filename } = new CowherdError(
    'ERR_COWHERD_IO',
    "'a\nb' fails\nas ever",
    details,
  );
  assert.equal(message, "'a\\nb' fails\nas ever");
  assert.equal(filename, 'a\nb');
});

test('names that an image holds keep to the line of the message', async (t) => {
  const folder = await temporaryFolder(t);
  const image = path.join(folder, 'image');
  const backing = path.join(folder, 'backing\nfile');
  await createImage(backing, { format: 'raw', size: 65_536 });
  const backed = { backingFile: backing, backingFormat: 'raw' } as const;
  await createImage(image, { format: 'qcow2', size: 65_536, ...backed });
  await assert.rejects(openImage(image, { backing: 'deny' }), /^CowherdError: .*backing\\nfile.*$/);
  await writeFile(backing, '');
  await (await openImage(image)).close();

  const dataFile = path.join(folder, 'data\nfile');
  const apart = path.join(folder, 'apart');
  await createImage(apart, { format: 'qcow2', size: 65_536, dataFile });
  await assert.rejects(openImage(apart, { untrusted: true }), /^CowherdError: .*data\\nfile.*$/);
});

test('a RangeError is about memory only where an allocation failed', () => {
  const told = (work: () => unknown): unknown => {
    try {
      return work();
    } catch (error) {
      return nameMemoryError(error, 'disk');
    }
  };
  const memory = told(() => new SharedArrayBuffer(2 ** 50));
  assert.ok(memory instanceof CowherdError);
  assert.equal(memory.code, 'ERR_COWHERD_NO_MEMORY');
  assert.match(memory.message, /'disk'/);
  for (const other of [
    () => new DataView(new ArrayBuffer(8)).getUint32(9),
    () => (1).toFixed(101),
    () => new Uint8Array(-1),
  ]) {
    const error = told(other);
    assert.ok(error instanceof RangeError && !(error instanceof CowherdError));
  }
});
