/** Servers that take whole blocks only are written to byte by byte all the same. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { openStorageFile } from '../../../src/storage/registry.js';
import { runCowherd } from '../../support/both-tools.js';
import { needsTool, runOk, temporaryFolder } from '../../support/tools.js';

const diskBytes = 1 << 20;
const blockBytes = 4096;
const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);

interface Served {
  readonly file: string;
  readonly uri: string;
}

/** A disk of which nbdkit lets whole blocks be read and written only. */
async function serveBlocks(
  t: TestContext,
  bytes = Buffer.alloc(diskBytes, 0xee),
): Promise<Served | undefined> {
  if (!needsTool(t, 'nbdkit')) return undefined;
  const folder = await temporaryFolder(t);
  const file = path.join(folder, 'disk');
  await writeFile(file, bytes);
  const socket = path.join(folder, 's');
  const policy = ['blocksize-error-policy=error', `blocksize-minimum=${blockBytes}`];
  const sizes = ['blocksize-preferred=4096', 'blocksize-maximum=65536'];
  const child = spawn('nbdkit', [
    ...['-f', '-U', socket, '--filter=blocksize-policy', 'file', file, ...policy, ...sizes],
  ]);
  const closed = once(child, 'close');
  t.after(async () => {
    child.kill();
    await closed;
  });
  for (let attempt = 0; attempt < 200; attempt++) {
    const client = connect(socket);
    const isThere = await once(client, 'connect').then(
      () => true,
      () => false,
    );
    client.destroy();
    if (isThere) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { file, uri: `nbd+unix:///?socket=${socket}` };
}

test('writes side by side leave what a model has', async (t) => {
  const served = await serveBlocks(t);
  if (served === undefined) return;
  t.diagnostic(`seed ${seed}`);
  const step = fc.record({
    kind: fc.constantFrom('write', 'write', 'zeroes', 'discard', 'read'),
    offset: fc.oneof(
      fc.nat(diskBytes - 70_000),
      fc.nat(15).map((block) => block * blockBytes),
    ),
    length: fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.constantFrom(512, 4096, 66_000)),
  });
  const model = Buffer.alloc(diskBytes, 0xee);
  // What was discarded may be anything.
  const known = Buffer.alloc(diskBytes, 1);
  let value = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
      const file = await openStorageFile(served.uri);
      const queue = file.openQueue();
      const taken: [number, number][] = [];
      const work: Promise<unknown>[] = [];
      for (const { kind, offset, length } of steps) {
        const end = offset + length;
        // Neighbours in one block, but no byte twice.
        if (taken.some(([from, to]) => offset < to && from < end)) continue;
        taken.push([offset, end]);
        value = (value % 250) + 1;
        const to = work.length % 2 === 0 ? file : queue;
        if (kind === 'write') {
          model.fill(value, offset, end);
          known.fill(1, offset, end);
          work.push(to.write(Buffer.alloc(length, value), offset));
        } else if (kind === 'zeroes') {
          model.fill(0, offset, end);
          known.fill(1, offset, end);
          work.push(to.writeZeroes(offset, length, false));
        } else if (kind === 'discard') {
          known.fill(0, offset, end);
          work.push(to.discard(offset, length));
        } else work.push(to.read(Buffer.alloc(length), offset));
      }
      await Promise.all(work);
      await queue.close();
      await file.flush();
      await file.close();
      const bytes = await readFile(served.file);
      const differs = bytes.findIndex((byte, at) => known[at] === 1 && byte !== model[at]);
      assert.equal(differs, -1, `byte ${differs}`);
    }),
    { seed, numRuns: 60 },
  );
});

test('an image that lies on such a server', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  const image = path.join(folder, 'image.qcow2');
  await runOk('qemu-img', ['create', '-q', '-f', 'qcow2', image, '8M']);
  const bytes = Buffer.alloc(16 << 20);
  bytes.set(await readFile(image));
  const served = await serveBlocks(t, bytes);
  if (served === undefined) return;
  const source = path.join(folder, 'source.raw');
  const content = Buffer.alloc(8 << 20);
  for (let at = 0; at < 5_000_000; at += 100_000) content.fill(1 + (at % 250), at, at + 70_001);
  await writeFile(source, content);
  const words = ['convert', '-n', '-f', 'raw', '-O', 'qcow2', source, served.uri];
  const { code, stderr } = await runCowherd(words, folder);
  assert.equal(code, 0, stderr);
  await runOk('qemu-img', ['check', '-f', 'qcow2', served.file]);
  await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', source, served.file]);
});
