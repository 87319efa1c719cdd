/** Everything that works without the addon, or without io_uring, in processes that have none. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { addon } from '../../src/native/addon.js';
import { projectFolder, run } from '../support/tools.js';

const compiled = path.join(projectFolder, 'dist');

/** Runs compiled test files in a process with other settings; they must pass. */
async function passesWith(env: Record<string, string>, ...files: string[]): Promise<void> {
  const result = await run(
    process.execPath,
    ['--test', ...files.map((file) => path.join(compiled, file))],
    // Unset, or the inner run would report to the outer one.
    { env: { ...env, NODE_TEST_CONTEXT: '' } },
  );
  assert.equal(result.code, 0, result.stdout);
}

test('file-node, zero scan and codecs without the addon', () =>
  passesWith(
    { COWHERD_NO_ADDON: '1', COWHERD_LOCKING: 'off' },
    'test/storage/conformance.test.js',
    'test/storage/file/open-file.test.js',
    'test/native/zero-scan.test.js',
    'test/native/codec.test.js',
  ));

const skip = addon === undefined ? 'needs the addon' : false;

test('threads serve where io_uring is not available', { skip }, () =>
  passesWith({ COWHERD_NO_IO_URING: '1' }, 'test/storage/conformance.test.js'));

test('writes serve where fallocate is not available', { skip }, () =>
  passesWith(
    { COWHERD_NO_FALLOCATE: '1' },
    'test/storage/conformance.test.js',
    'test/storage/model.property.test.js',
  ));
