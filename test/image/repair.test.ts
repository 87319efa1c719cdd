/** Opening images that were not closed cleanly or are corrupt, and repairing through the library. */
import assert from 'node:assert/strict';
import { copyFile, open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { CowherdError } from '../../src/errors.js';
import type { CheckFinding } from '../../src/image/api/reports.js';
import { attachImage } from '../../src/image/threads/attach.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { runCowherd } from '../support/both-tools.js';
import { CorruptionBases, imageName } from '../support/corruption-bases.js';
import { DamagedImage, lazy } from '../support/damaged-image.js';
import { fixture, unpackFixtures } from '../support/fixtures.js';
import { needsTool, run, runOk, temporaryFolder } from '../support/tools.js';

const dirty = 1;
const corrupt = 2;

/** The lowest byte of the incompatible features. */
async function features(file: string): Promise<number> {
  const handle = await open(file, 'r');
  const { buffer } = await handle.read(Buffer.alloc(8), 0, 8, 72);
  await handle.close();
  return buffer[7];
}

async function setFeature(file: string, bit: number): Promise<void> {
  const value = (await features(file)) | bit;
  const handle = await open(file, 'r+');
  await handle.write(Buffer.from([value]), 0, 1, 79);
  await handle.close();
}

async function image(t: TestContext): Promise<string> {
  const file = path.join(await temporaryFolder(t), 'image.qcow2');
  await createImage(file, { format: 'qcow2', size: '1M', lazyRefcounts: true });
  await using made = await openImage(file);
  await made.write(Buffer.alloc(200_000, 0x5a), 1000);
  return file;
}

test('an image that was not closed cleanly is repaired before it is written to', async (t) => {
  const folder = await unpackFixtures(t, [fixture('dirty.qcow2')]);
  const file = path.join(folder, 'dirty.qcow2');
  const reader = await openImage(file, { readOnly: true });
  const before = Buffer.alloc(reader.size);
  await reader.read(before, 0);
  await reader.close();
  assert.equal(await features(file), dirty, 'reading repairs nothing');
  const findings: CheckFinding[] = [];
  const writer = await openImage(file, { onFinding: (finding) => findings.push(finding) });
  assert.ok(findings.some(({ message }) => message === 'Rebuilding refcount structure'));
  assert.equal(await features(file), 0);
  const after = Buffer.alloc(writer.size);
  await writer.read(after, 0);
  assert.deepEqual(after, before);
  await writer.write(Buffer.alloc(4096, 0x77), 0x10000);
  await writer.close();
  assert.equal(await features(file), 0);
  if (needsTool(t, 'qemu-img')) await runOk('qemu-img', ['check', file]);
});

test('lazyRefcounts says otherwise than the image', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  for (const [stored, asked, dirtyMeanwhile] of [
    [true, undefined, dirty],
    [true, false, 0],
    [false, true, dirty],
    [false, false, 0],
  ] as const) {
    const file = path.join(folder, 'image.qcow2');
    await createImage(file, { format: 'qcow2', size: '1M', lazyRefcounts: stored });
    const image = await openImage(file, { lazyRefcounts: asked });
    const attached = await attachImage(image.handle());
    await attached.write(Buffer.alloc(200_000, 0x5a), 1000);
    await attached.flush();
    assert.equal(await features(file), dirtyMeanwhile);
    const { code, stdout } = await run('qemu-img', ['check', '-U', file]);
    // Counts that are not written are errors to a check, until they are.
    assert.equal(code === 2, dirtyMeanwhile === dirty, stdout);
    await attached.close();
    await image.close();
    assert.equal(await features(file), 0);
    await runOk('qemu-img', ['check', file]);
  }
  const old = path.join(folder, 'old.qcow2');
  await createImage(old, { format: 'qcow2', size: '1M', compat: '0.10' });
  await assert.rejects(openImage(old, { lazyRefcounts: true }), {
    code: 'ERR_COWHERD_INVALID_ARGUMENT',
    message: `Could not open '${old}': Lazy refcounts require a qcow2 image of version 3 (compat 1.1)`,
  });
});

test('a corrupt image is not written to until a repair has found nothing left', async (t) => {
  const file = await image(t);
  await setFeature(file, corrupt);
  await assert.rejects(
    openImage(file),
    (error) => error instanceof CowherdError && error.code === 'ERR_COWHERD_CORRUPT',
  );
  const checked = await openImage(file, { forCheck: true });
  await assert.rejects(checked.write(Buffer.alloc(512), 0), { code: 'ERR_COWHERD_READ_ONLY' });
  const result = await checked.check({ repair: 'all' });
  assert.deepEqual([result.corruptions, result.leaks, result.failure], [0, 0, undefined]);
  await checked.close();
  assert.equal(await features(file), 0);
  await using again = await openImage(file);
  await again.write(Buffer.alloc(512), 0);
});

test('a repair needs an image opened for it', async (t) => {
  const file = await image(t);
  for (const options of [{}, { readOnly: true, forCheck: true }]) {
    await using opened = await openImage(file, options);
    await assert.rejects(opened.check({ repair: 'leaks' }), {
      code: 'ERR_COWHERD_INVALID_ARGUMENT',
    });
  }
});

test('each finding says what it means, and --explain prints it', async (t) => {
  const folder = await unpackFixtures(t, [fixture('entry-beyond-end.qcow2')]);
  const { stderr } = await runCowherd(['check', '--explain', 'entry-beyond-end.qcow2'], folder);
  const lines = stderr.trimEnd().split('\n');
  assert.match(lines[0], /^ERROR: counting reference for region exceeding the end/);
  assert.match(lines[1], /^ {2}Something refers to a place the file does not have: .*\.$/);
  assert.ok(lines.every((line, index) => line.startsWith('  ') === (index % 2 === 1)));
  await using opened = await openImage(path.join(folder, 'entry-beyond-end.qcow2'), {
    readOnly: true,
  });
  const { findings } = await opened.check();
  assert.ok(findings.length > 0);
  for (const { explanation, topic } of findings) {
    assert.match(explanation, /^[A-Z].*\.$/);
    assert.match(topic, /^[a-zA-Z0-9]+$/);
  }
});

test('a target of convert -n that was not closed is repaired first, in the same words', async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const folder = await temporaryFolder(t);
  const source = path.join(folder, 'source.raw');
  await writeFile(source, new Uint8Array(65536).fill(1));
  const whole = path.join(await new CorruptionBases(folder).folderOf(lazy), imageName);
  const file = path.join(folder, 'target.qcow2');
  const said: string[] = [];
  for (const convert of [runCowherd, (words: readonly string[]) => run('qemu-img', words)]) {
    await copyFile(whole, file);
    const image = new DamagedImage(file);
    image.setFeatureBit(72, 0);
    image.count(image.host(0), 0);
    image.count(image.host(4096), 5);
    image.save();
    const words = ['convert', '-n', '-f', 'raw', '-O', 'qcow2', source, file];
    const { stderr, code } = await convert(words, folder);
    assert.equal(code, 0, stderr);
    assert.equal((await run('qemu-img', ['check', file])).code, 0);
    said.push(stderr);
  }
  assert.match(said[0], /Rebuilding refcount structure/);
  assert.equal(said[1], said[0]);
});
