/** QEMU's tools and cowherd refuse to change one image together, in both directions. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { addon } from '../../../src/native/addon.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import { environmentOf, findTool, needsTool, run, runOk } from '../../support/tools.js';
import { diskFolder } from '../backends.js';

const locked = { code: 'ERR_COWHERD_LOCKED' };

function newFile(t: TestContext): string {
  const filename = path.join(diskFolder(t), 'disk.raw');
  writeFileSync(filename, new Uint8Array(1 << 20));
  return filename;
}

/** A qcow2 image: QEMU shares raw files with everybody, as far as its own readers go. */
async function newImage(t: TestContext): Promise<string> {
  const filename = path.join(diskFolder(t), 'disk.qcow2');
  await runOk('qemu-img', ['create', '-f', 'qcow2', filename, '1M']);
  return filename;
}

/** qemu-io, holding the image open until the test ends. */
async function holdWithQemu(t: TestContext, filename: string, flags: string[]): Promise<void> {
  const child = spawn(findTool('qemu-io')!, [...flags, '-f', 'qcow2', filename], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: environmentOf('qemu-io'),
  });
  t.after(async () => {
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.stdin.end('quit\n');
    await ended;
  });
  // It answers once it has the image open.
  child.stdin.write('length\n');
  await new Promise((resolve) => child.stdout.once('data', resolve));
}

const skip = addon === undefined ? 'locks need the addon' : false;

test('two writers of one process conflict, readers do not', { skip }, async (t) => {
  const filename = newFile(t);
  const writer = await openStorageFile(filename);
  await assert.rejects(openStorageFile(filename), {
    ...locked,
    message:
      `Could not open '${filename}': Failed to get "write" lock\n` +
      `Is another process using the image [${filename}]?`,
  });
  await assert.rejects(openStorageFile(filename, { readOnly: true }), {
    ...locked,
    message: /Failed to get shared "write" lock/,
  });
  const forced = await openStorageFile(filename, { readOnly: true, forceShare: true });
  await forced.close();
  await writer.close();
  const first = await openStorageFile(filename, { readOnly: true });
  const second = await openStorageFile(filename, { readOnly: true });
  await assert.rejects(openStorageFile(filename), locked);
  await first.close();
  await second.close();
  await (await openStorageFile(filename)).close();
});

test('locks last until the last queue closes', { skip }, async (t) => {
  const filename = newFile(t);
  const file = await openStorageFile(filename);
  const queue = file.openQueue();
  await file.close();
  await assert.rejects(openStorageFile(filename), locked);
  await queue.close();
  await (await openStorageFile(filename)).close();
});

test('QEMU refuses what cowherd writes', { skip }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const filename = await newImage(t);
  const file = await openStorageFile(filename);
  t.after(() => file.close());
  const info = await run('qemu-img', ['info', '-f', 'qcow2', filename]);
  assert.equal(info.code, 1);
  assert.match(info.stderr, /Failed to get shared "write" lock/);
  assert.match(info.stderr, /Is another process using the image/);
  assert.equal((await run('qemu-img', ['info', '-U', '-f', 'qcow2', filename])).code, 0);
  const write = await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', filename]);
  assert.equal(write.code, 1);
  assert.match(write.stderr, /Failed to get "write" lock/);
});

test('QEMU may read, but not write, what cowherd reads', { skip }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const filename = await newImage(t);
  const file = await openStorageFile(filename, { readOnly: true });
  t.after(() => file.close());
  assert.equal((await run('qemu-img', ['info', '-f', 'qcow2', filename])).code, 0);
  const write = await run('qemu-io', ['-f', 'qcow2', '-c', 'write 0 512', filename]);
  assert.match(write.stderr, /Failed to get "write" lock/);
});

test('cowherd refuses what QEMU writes', { skip }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const filename = await newImage(t);
  await holdWithQemu(t, filename, []);
  await assert.rejects(openStorageFile(filename), { ...locked, message: /Failed to get "write"/ });
  await assert.rejects(openStorageFile(filename, { readOnly: true }), {
    ...locked,
    message: /Failed to get shared "write" lock/,
  });
  await (await openStorageFile(filename, { readOnly: true, forceShare: true })).close();
});

test('cowherd may read, but not write, what QEMU reads', { skip }, async (t) => {
  if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
  const filename = await newImage(t);
  await holdWithQemu(t, filename, ['-r']);
  await (await openStorageFile(filename, { readOnly: true })).close();
  await assert.rejects(openStorageFile(filename), { ...locked, message: /Failed to get "write"/ });
});
