/** Copies of a disk: what most of them hold, and what differs; beside QEMU's. */
import assert from 'node:assert/strict';
import { copyFile, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { withFilters } from '../../../src/storage/filters/registry.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { runCowherd, runQemuImg } from '../../support/both-tools.js';
import { needsTool, temporaryFolder } from '../../support/tools.js';

/** Three copies of a disk, of which the last differs. */
async function copies(t: TestContext): Promise<string> {
  const folder = await temporaryFolder(t);
  await runCowherd(['create', '-q', '-f', 'qcow2', 'a', '4M'], folder);
  await runCowherd(['io', '-c', 'write -P 7 0 1M', 'a'], folder);
  for (const name of ['b', 'c']) {
    await copyFile(path.join(folder, 'a'), path.join(folder, name));
  }
  await runCowherd(['io', '-c', 'write -P 9 64k 64k', 'c'], folder);
  return folder;
}

const json = (options: object): string => `json:${JSON.stringify(options)}`;
const children = ['c', 'a', 'b'].map((filename) => ({ driver: 'qcow2', file: { filename } }));

test('what enough copies agree on is read, as by QEMU; without it reading fails', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await copies(t);
  for (const [options, code] of [
    [{ 'vote-threshold': 2 }, 0],
    [{ 'vote-threshold': 3 }, 1],
    [{ 'vote-threshold': 1, 'read-pattern': 'fifo' }, 0],
    [{ 'vote-threshold': 4 }, 1],
    [{ 'vote-threshold': 2, blkverify: true }, 1],
    [{}, 1],
  ] as const) {
    const name = json({ driver: 'quorum', children, ...options });
    const ours = await runCowherd(['convert', '-O', 'raw', name, 'ours'], folder);
    const theirs = await runQemuImg(['convert', '-O', 'raw', name, 'theirs'], folder);
    assert.deepEqual([ours.code, theirs.code], [code, code], name + ours.stderr + theirs.stderr);
    if (code !== 0) assert.match(ours.stderr, /^cowherd: [^\n]+\n$/);
    const [one, other] = await Promise.all(
      ['ours', 'theirs'].map((each) => readFile(path.join(folder, each)).catch(() => null)),
    );
    if (code === 0) assert.ok(one?.equals(other!), name);
  }
});

test('a copy that was outvoted is put right, where that is wanted', async () => {
  const [good, other, bad] = ['good', 'other', 'bad'].map((name) => new MemoryFile(name));
  const bytes = new Uint8Array(4096).fill(5);
  await Promise.all([good.write(bytes, 0), other.write(bytes, 0), bad.write(bytes.slice(), 0)]);
  await bad.write(new Uint8Array(512), 1024);
  const files = new Map([good, other].map((file) => [file.filename, file]));
  const file = await withFilters(
    bad,
    [{ name: 'quorum', children: ['good', 'other'], voteThreshold: 2, rewriteCorrupted: true }],
    (name) => Promise.resolve(files.get(name)!),
  );
  const read = new Uint8Array(4096);
  await file.read(read, 0);
  assert.deepEqual(read, bytes);
  const now = new Uint8Array(4096);
  await bad.read(now, 0);
  assert.deepEqual(now, bytes);
  await file.close();
});

test('an image is verified by a raw copy of its disk', async (t) => {
  const folder = await copies(t);
  await runCowherd(['convert', '-O', 'raw', 'a', 'raw'], folder);
  const good = await runCowherd(['convert', '-O', 'raw', 'blkverify:raw:a', 'out'], folder);
  assert.deepEqual([good.stderr, good.code], ['', 0]);
  const bad = await runCowherd(['convert', '-O', 'raw', 'blkverify:raw:c', 'out'], folder);
  assert.equal(bad.code, 1);
  assert.match(bad.stderr, /^cowherd: [^\n]*their bytes differ at offset 65536\n$/);
  for (const name of ['blkverify:raw', 'blkverify:absent:a', 'blkverify:raw:absent']) {
    const { code, stderr } = await runCowherd(['info', name], folder);
    assert.equal(code, 1);
    assert.match(stderr, /^cowherd: [^\n]+\n$/);
  }
});

test('a file that grows by much at once ends with its data when it is closed', async (t) => {
  const folder = await temporaryFolder(t);
  await runCowherd(['create', '-q', '-f', 'qcow2', 'disk', '10M'], folder);
  const file = { driver: 'file', filename: 'disk' };
  const name = json({ driver: 'qcow2', file: { driver: 'preallocate', file } });
  const { code, stderr } = await runCowherd(['io', '-c', 'write -P 5 0 3M', name], folder);
  assert.equal(code, 0, stderr);
  assert.ok((await stat(path.join(folder, 'disk'))).size < 4 << 20);
  const checked = await runCowherd(['io', '-c', 'read -P 5 0 3M', 'disk'], folder);
  assert.equal(checked.code, 0, checked.stdout);
});
