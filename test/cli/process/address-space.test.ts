/** Under a limit of address space, which services put on qemu-img. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { addon } from '../../../src/native/addon.js';
import {
  cowherdProgram,
  needsTool,
  run,
  skipsSanitizer,
  temporaryFolder,
} from '../../support/tools.js';

test('every command runs in 1 GiB of address space', async (t) => {
  if (!needsTool(t, 'prlimit') || skipsSanitizer(t, 'its shadow alone takes more')) return;
  if (addon === undefined) {
    t.skip('without the addon the program cannot start itself anew');
    return;
  }
  const folder = await temporaryFolder(t);
  await writeFile(path.join(folder, 'disk.raw'), Buffer.alloc(3 << 20, 'data'));
  for (const words of [
    ['create', '-q', '-f', 'qcow2', 'disk.qcow2', '10G'],
    ['info', '--output=json', 'disk.qcow2'],
    ['check', '-q', 'disk.qcow2'],
    ['map', 'disk.qcow2'],
    ['convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'copy.qcow2'],
    ['convert', '-c', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'small.qcow2'],
    ['compare', '-q', '-f', 'raw', 'disk.raw', 'small.qcow2'],
    ['bench', '-q', '-c', '100', 'copy.qcow2'],
  ]) {
    for (let round = 0; round < 2; round += 1) {
      const limited = ['--as=1073741824', '--', process.execPath, cowherdProgram, ...words];
      const { stderr, code } = await run('prlimit', limited, { cwd: folder });
      assert.deepEqual([words, stderr, code], [words, '', 0]);
    }
  }
});
