/** `check` prints what qemu-img prints, of every fixture, and exits as it does. */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { checkJson, checkText } from '../../../src/cli/commands/check.js';
import type { CheckResult } from '../../../src/image/api/reports.js';
import { assertSame } from '../../support/both-tools.js';
import { fixture, fixtures, unpackFixtures } from '../../support/fixtures.js';
import { needsTool } from '../../support/tools.js';

test('check of every fixture that can be opened', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t);
  for (const { file, checkExitCode } of fixtures) {
    if (checkExitCode === undefined || /^(?:encrypted-|backing-missing)/.test(file)) continue;
    await t.test(file, async () => {
      // What a table of text means is found in another order; of the other QEMU says one line more.
      const stderr = file !== 'table-unaligned.qcow2' && file !== 'refcount-block-unaligned.qcow2';
      await assertSame(['check', file], folder, { stderr });
      await assertSame(['check', '--output=json', file], folder, { stderr });
    });
  }
});

test('quiet, raw images, and refusals', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('leak.qcow2'), fixture('base.raw')]);
  await assertSame(['check', '-q', 'leak.qcow2'], folder);
  await assertSame(['check', '-f', 'raw', 'leak.qcow2'], folder);
  await assertSame(['check', '--output=json', 'base.raw'], folder);
  await assertSame(['check', '-T', 'none', 'leak.qcow2'], folder);
  await assertSame(['check', '--image-opts', '--output=json', 'file.filename=leak.qcow2'], folder);
});

/** Opens an image of 64 KiB clusters whose refcount structures are to be changed. */
async function refcountsOf(folder: string) {
  const file = await open(path.join(folder, 'default.qcow2'), 'r+');
  const pointer = async (place: number): Promise<number> => {
    const bytes = Buffer.alloc(8);
    await file.read(bytes, 0, 8, place);
    return Number(bytes.readBigUInt64BE());
  };
  // The header says where the table is, and the table where its first block is.
  const table = await pointer(48);
  const block = await pointer(table);
  const clusters = Math.ceil((await file.stat()).size / 65536);
  return { file, table, block, clusters };
}

test('what is counted beyond the end of the file takes no space', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const { file, block, clusters } = await refcountsOf(folder);
  await file.write(Buffer.from([0, 1, 0, 1]), 0, 4, block + 2 * clusters);
  await file.close();
  await assertSame(['check', 'default.qcow2'], folder);
  await assertSame(['check', '--output=json', 'default.qcow2'], folder);
});

test('a small file that claims to count hundreds of millions of clusters is soon done with', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await unpackFixtures(t, [fixture('default.qcow2')]);
  const { file, table, clusters } = await refcountsOf(folder);
  // One block, full of ones, that all the rest of the table points to.
  await file.write(Buffer.alloc(65536, '0001', 'hex'), 0, 65536, clusters * 65536);
  const pointer = Buffer.alloc(8);
  pointer.writeBigUInt64BE(BigInt(clusters * 65536));
  await file.write(Buffer.alloc(65536 - 8, pointer), 0, 65536 - 8, table + 8);
  await file.close();
  await assertSame(['check', 'default.qcow2'], folder);
});

const clean: CheckResult = {
  filename: 'a.qcow2',
  format: 'qcow2',
  checkErrors: 0,
  corruptions: 0,
  leaks: 0,
  corruptionsFixed: 0,
  leaksFixed: 0,
  failure: undefined,
  findings: [],
  imageEndOffset: 262144,
  totalClusters: 16,
  allocatedClusters: 0,
  fragmentedClusters: 0,
  compressedClusters: 0,
};

test('the text counts what was found, and what is allocated if anything is', () => {
  assert.equal(checkText(clean), 'No errors were found on the image.\nImage end offset: 262144\n');
  assert.equal(
    checkText({ ...clean, checkErrors: 2, corruptions: 3, leaks: 4, allocatedClusters: 8 }),
    [
      '',
      '3 errors were found on the image.',
      'Data may be corrupted, or further writes to the image may corrupt it.',
      '',
      '4 leaked clusters were found on the image.',
      'This means waste of disk space, but no harm to data.',
      '',
      '2 internal errors have occurred during the check.',
      '8/16 = 50.00% allocated, 0.00% fragmented, 0.00% compressed clusters',
      'Image end offset: 262144',
      '',
    ].join('\n'),
  );
});

test('the JSON leaves out what is zero, except the errors of the check itself', () => {
  assert.deepEqual(Object.keys(JSON.parse(checkJson(clean)) as object), [
    'image-end-offset',
    'total-clusters',
    'check-errors',
    'filename',
    'format',
  ]);
});
