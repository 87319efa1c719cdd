/** Lists of options that name images: taken as qemu-img takes them, or refused in one line. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { assertSame, runCowherd } from '../../support/both-tools.js';
import { needsTool, run, runOk, temporaryFolder } from '../../support/tools.js';

/** An overlay, another base for it, a raw disk, an image with a data file, and a copy of that. */
async function files(t: TestContext): Promise<string> {
  const cwd = await temporaryFolder(t);
  const tool = (name: string, ...words: string[]) => runOk(name, words, { cwd });
  for (const [base, pattern] of [
    ['base.qcow2', 5],
    ['other.qcow2', 6],
  ] as const) {
    await tool('qemu-img', 'create', '-q', '-f', 'qcow2', base, '1M');
    await tool('qemu-io', '-c', `write -q -P ${pattern} 0 1M`, base);
  }
  const below = ['-b', 'base.qcow2', '-F', 'qcow2'];
  await tool('qemu-img', 'create', '-q', '-f', 'qcow2', ...below, 'top.qcow2');
  await tool('qemu-io', '-c', 'write -q -P 7 64k 64k', 'top.qcow2');
  await tool('qemu-img', 'create', '-q', '-f', 'raw', 'disk.raw', '1M');
  await tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'data_file=a.data', 'a.qcow2', '1M');
  await tool('qemu-io', '-c', 'write -q -P 8 0 128k', 'a.qcow2');
  await tool('cp', 'a.data', 'copy.data');
  await tool('qemu-io', '-f', 'raw', '-c', 'write -q -P 9 0 64k', 'copy.data');
  return cwd;
}

const top = 'driver=qcow2,file.filename=top.qcow2';
const taken: readonly string[] = [
  `${top},read-only=on,auto-read-only=off,node-name=n`,
  `${top},force-share=on`,
  `${top},file.locking=off`,
  `${top},file.locking=auto,file.driver=file,file.node-name=f`,
  `${top},cache.direct=on,file.aio=native`,
  `${top},cache.no-flush=on,file.aio=threads`,
  `${top},discard=unmap,detect-zeroes=unmap`,
  `${top},lazy-refcounts=on,l2-cache-size=1M,l2-cache-entry-size=4k,refcount-cache-size=1M`,
  `${top},cache-size=2M,cache-clean-interval=600`,
  `${top},pass-discard-request=on,pass-discard-other=off,discard-no-unref=on`,
  `${top},overlap-check=all`,
  `${top},backing.driver=qcow2,backing.file.filename=base.qcow2`,
  `${top},backing.file.filename=other.qcow2,backing.file.driver=file`,
  `${top},backing.driver=qcow2,backing.file.filename=base.qcow2,backing.l2-cache-size=1M`,
  `${top},backing.driver=raw,backing.offset=512,backing.size=1024,backing.file.filename=disk.raw`,
  'file.filename=top.qcow2',
  'driver=raw,file.filename=disk.raw',
  'driver=file,filename=disk.raw',
  'driver=file,filename=disk.raw,locking=off',
  'data-file.filename=a.data,file.filename=a.qcow2',
  'driver=qcow2,data-file.driver=file,data-file.filename=copy.data,file.filename=a.qcow2',
];

test('what is taken is carried out', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const cwd = await files(t);
  for (const list of taken) {
    const words = ['convert', '--image-opts', '-O', 'raw', list];
    const result = await run('qemu-img', [...words, 'theirs.raw'], { cwd });
    assert.equal(result.code, 0, `${list}: ${result.stderr}`);
    const ours = await runCowherd([...words, 'ours.raw'], cwd);
    assert.deepEqual(ours, { code: 0, stdout: '', stderr: '' }, list);
    const [theirContent, ourContent] = await Promise.all(
      ['theirs.raw', 'ours.raw'].map((name) => readFile(path.join(cwd, name))),
    );
    assert.ok(ourContent.equals(theirContent), list);
    const { code } = await runCowherd(['map', '--image-opts', list], cwd);
    assert.equal(code, 0, list);
  }
});

test('what qemu-img refuses is refused in its words', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const cwd = await files(t);
  const lists = [
    'file.filename=a.qcow2,foo=bar',
    `${top},foo=bar`,
    'driver=raw,file.filename=disk.raw,overlap-check=all',
    'driver=nonsense,file.filename=disk.raw',
    `${top},discard=ignore,detect-zeroes=unmap`,
    'nonsense',
    'driver=qcow2',
  ];
  for (const list of lists) await assertSame(['info', '--image-opts', list], cwd);
});

test('what cannot be kept is refused in one line', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const cwd = await files(t);
  const reading = [
    `${top},backing.file.filename=base.qcow2,backing.nonsense=1`,
    `${top},data-file.filename=a,data-file.nonsense=1`,
    `${top},cache.direct=maybe`,
    `${top},file.aio=magic`,
    `${top},l2-cache-size=many`,
  ];
  for (const list of reading) {
    const { code, stderr } = await runCowherd(['info', '--image-opts', list], cwd);
    assert.equal(code, 1, list);
    assert.match(stderr, /^cowherd: Could not open '.+': .+\n$/);
  }
  for (const option of ['force-share=on', 'discard-no-unref=on']) {
    const target = `driver=qcow2,file.filename=other.qcow2,${option}`;
    const words = ['convert', '-n', '--target-image-opts', 'disk.raw', target];
    const { code, stderr } = await runCowherd(words, cwd);
    assert.equal(code, 1, option);
    assert.match(stderr, /^cowherd: Could not open '.+': .+\n$/);
  }
});
