/** Digests of a source's file and disk: against those of other tools, and before anything is made. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { checksum } from '../../src/jobs/checksum.js';
import { runCowherd } from '../support/both-tools.js';
import { temporaryFolder } from '../support/tools.js';

test('the digests are those of the file and of the disk', async (t) => {
  const folder = await temporaryFolder(t);
  const disk = Uint8Array.from({ length: 5 << 20 }, (_, at) =>
    at < 3 << 20 ? 0 : (at >> 9) & 0xff,
  );
  await writeFile(path.join(folder, 'disk.raw'), disk);
  await runCowherd(['convert', '-O', 'qcow2', '-c', 'disk.raw', 'disk.qcow2'], folder);
  const file = await readFile(path.join(folder, 'disk.qcow2'));
  const hex = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
  const expected = { file: hex(file), content: hex(disk) };
  const image = path.join(folder, 'disk.qcow2');
  assert.deepEqual(await checksum(image, { algorithm: 'sha256' }), expected);
  assert.notEqual(expected.file, expected.content);

  const words = ['convert', '-O', 'raw', 'disk.qcow2', 'out.raw', '--checksum'];
  const printed = await runCowherd([...words, 'sha256'], folder);
  assert.equal(
    printed.stdout,
    `sha256 of the file disk.qcow2: ${expected.file}\nsha256 of the disk disk.qcow2: ${expected.content}\n`,
  );
  for (const digest of [expected.file, expected.content.toUpperCase()]) {
    const { code, stdout, stderr } = await runCowherd([...words, `SHA256:${digest}`], folder);
    assert.deepEqual([code, stdout, stderr], [0, '', '']);
  }
  const wrong = ['convert', '-O', 'raw', 'disk.qcow2', 'wrong.raw', '--checksum'];
  for (const [argument, message] of [
    [`sha256:${'0'.repeat(64)}`, /^cowherd: 'disk.qcow2' is not what was expected: [^\n]*\n$/],
    ['nonsense', /^cowherd: There is no digest 'nonsense'\n$/],
    ['sha256:xyz', /^cowherd: Invalid checksum 'sha256:xyz': [^\n]*\n$/],
  ] as const) {
    const { code, stderr } = await runCowherd([...wrong, argument], folder);
    assert.equal(code, 1);
    assert.match(stderr, message);
    await assert.rejects(stat(path.join(folder, 'wrong.raw')), { code: 'ENOENT' });
  }
  const missing = await runCowherd([...wrong.with(3, 'missing'), 'sha256'], folder);
  assert.match(missing.stderr, /^cowherd: Could not open 'missing': [^\n]*No such file[^\n]*\n$/);
});

test('a digest that is cancelled, or that there is not, is refused', async (t) => {
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk.raw');
  await writeFile(file, new Uint8Array(1024));
  await assert.rejects(checksum(file, { algorithm: 'crc0' }), {
    code: 'ERR_COWHERD_INVALID_ARGUMENT',
  });
  const signal = AbortSignal.abort();
  await assert.rejects(checksum(file, { algorithm: 'md5', signal }), {
    code: 'ERR_COWHERD_ABORTED',
  });
});
