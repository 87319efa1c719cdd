/**
 * `kill -9` in the middle of writing through several queues: the image opens, everything flushed is
 * there, at most clusters are leaked, and a bitmap that recorded says that it was in use. COWHERD_KILLS says
 * how often.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { CreateOptions } from '../../src/image/api/options.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImage } from '../../src/image/graph/open.js';
import { needsTool, run, temporaryFolder } from '../support/tools.js';
import { blockBytes, blocksOfThread } from './kill-layout.js';

const kills = Number(process.env['COWHERD_KILLS'] ?? 12);
const threads = 3;
const program = fileURLToPath(new URL('kill-writer.js', import.meta.url));

const shapes: readonly CreateOptions[] = [
  { clusterSize: 512 },
  { clusterSize: 4096, refcountBits: 64 },
  { clusterSize: 65536, extendedL2: true },
];

/** Runs the program for a while, and kills it. @returns up to which number each thread had flushed */
async function writeAndKill(place: string, afterMs: number): Promise<number[]> {
  const flushed = new Array<number>(threads).fill(0);
  const child = spawn(process.execPath, [program, place, String(threads)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  let timer: NodeJS.Timeout | undefined;
  child.stdout.on('data', (chunk: Buffer) => {
    // The time begins when the first has flushed: what comes before is the start of Node.
    timer ??= setTimeout(() => child.kill('SIGKILL'), afterMs);
    text += chunk.toString();
  });
  await new Promise((resolve) => child.on('close', resolve));
  // What the last line lacks was never said.
  for (const line of text
    .slice(0, text.lastIndexOf('\n') + 1)
    .trim()
    .split('\n')) {
    const [thread, number] = line.split(' ').map(Number);
    flushed[thread] = number;
  }
  return flushed;
}

test(`killed ${kills} times while ${threads} threads write`, async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  const folder = await temporaryFolder(t);
  let leaks = 0;
  for (let round = 0; round < kills; round++) {
    const place = path.join(folder, `${round}.qcow2`);
    await createImage(place, { format: 'qcow2', size: '32M', ...shapes[round % shapes.length] });
    const made = await openImage(place);
    await made.bitmaps.add('since');
    await made.close();
    const flushed = await writeAndKill(place, (round * 37) % 250);
    const { code, stdout } = await run('qemu-img', ['check', '-f', 'qcow2', place]);
    assert.ok(code === 0 || code === 3, `round ${round}: ${stdout.slice(-1000)}`);
    if (code === 3) leaks++;
    const image = await openImage(place, { format: 'qcow2' });
    const content = new Uint32Array(blockBytes / 4);
    for (const [thread, last] of flushed.entries()) {
      for (let value = Math.max(1, last - blocksOfThread + 1); value <= last; value++) {
        const block = thread * blocksOfThread + (value % blocksOfThread);
        await image.read(new Uint8Array(content.buffer), block * blockBytes);
        assert.ok(
          content.every((word) => word >= value && (word - value) % blocksOfThread === 0),
          `round ${round}: thread ${thread} had flushed ${value}, found ${content[0]}`,
        );
      }
    }
    // What the killed one knew of it is lost, and it does not pretend to say anything.
    const [{ isInconsistent }] = await image.bitmaps.list();
    assert.ok(isInconsistent, `round ${round}: the bitmap is taken for what it is not`);
    await image.bitmaps.remove('since');
    await image.close();
    await rm(place);
  }
  t.diagnostic(`${kills} kills, ${leaks} of them left leaks, none anything else`);
});
