/** Checking VDI images, as qemu-img does it. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';
import { assertChecks } from '../check-referee.js';
import { setNumber, writeByQemu } from '../vhdx/referee.js';

const mapAt = 512;

function number(at: number, value: number): (bytes: Buffer) => undefined {
  return (bytes) => {
    setNumber(at, value, 'LE32')(bytes);
    return undefined;
  };
}

test('damages of the map', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const file = path.join(await temporaryFolder(t), 'disk.vdi');
  await runOk('qemu-img', ['create', '-q', '-f', 'vdi', file, '8M']);
  await writeByQemu(file, 'vdi', ['write -P 1 0 100k', 'write -P 2 4M 10k']);
  await assertChecks(file, { format: 'vdi', repairs: [], sameFindings: true }, [
    { what: 'nothing', change: () => undefined },
    {
      what: 'a block that the image cannot have',
      change: number(mapAt, 100),
      finds: [
        'ERROR: block index 0 too large, is 100',
        'ERROR: allocated blocks mismatch, is 1, should be 2',
      ],
    },
    {
      what: 'two blocks at one place',
      change: number(mapAt + 4, 0),
      finds: [
        'ERROR: block index 0 also used by 0',
        'ERROR: allocated blocks mismatch, is 3, should be 2',
      ],
    },
    {
      what: 'a block that was discarded',
      change: number(mapAt, 0xfffffffe),
      finds: ['ERROR: allocated blocks mismatch, is 1, should be 2'],
    },
    {
      what: 'number of blocks',
      change: number(0x184, 5),
      finds: ['ERROR: allocated blocks mismatch, is 2, should be 5'],
    },
    // QEMU reads zeroes there.
    {
      what: 'a block beyond the end of the file',
      change: number(mapAt, 7),
      finds: ['ERROR: block index 0 lies beyond the end of the file'],
      code: 2,
    },
    {
      what: 'a file that was cut off',
      change: (bytes) => bytes.subarray(0, bytes.length - 1),
      finds: ['ERROR: block index 4 lies beyond the end of the file'],
      code: 2,
    },
  ]);
});

test('a repair is refused in one line', async (t) => {
  const folder = await temporaryFolder(t);
  await runCowherd(['create', '-q', '-f', 'vdi', 'disk.vdi', '3M'], folder);
  const { code, stderr } = await runCowherd(['check', '-r', 'all', 'disk.vdi'], folder);
  assert.equal(code, 63);
  assert.equal(
    stderr,
    "cowherd: 'disk.vdi': images of the vdi format are checked, and not repaired\n",
  );
});
