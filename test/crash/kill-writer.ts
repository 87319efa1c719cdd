/**
 * A program to be killed: threads that write blocks with rising numbers into one image, and say on
 * standard output up to which number each has flushed.
 *
 *     node kill-writer.js IMAGE THREADS
 */
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import type { ImageHandle } from '../../src/image/api/image.js';
import { attachImage } from '../../src/image/threads/attach.js';
import { openImage } from '../../src/image/graph/open.js';
import { blockBytes, blocksOfThread } from './kill-layout.js';

const depth = 16;
const writesBetweenFlushes = 64;

async function write(handle: ImageHandle, thread: number): Promise<void> {
  const image = await attachImage(handle);
  for (let number = 1; ; number += writesBetweenFlushes) {
    for (let done = 0; done < writesBetweenFlushes; done += depth) {
      const writes = Array.from({ length: depth }, (_, index) => {
        const value = number + done + index;
        const buffer = new Uint8Array(blockBytes);
        new Uint32Array(buffer.buffer).fill(value);
        const block = thread * blocksOfThread + (value % blocksOfThread);
        return image.write(buffer, block * blockBytes);
      });
      await Promise.all(writes);
    }
    if (thread % 2 === 0) {
      // Beyond what is judged: clusters that come and go, so that counts rise and fall.
      await image.discard(image.size / 2, 64 * blockBytes);
      await image.write(new Uint8Array(32 * blockBytes), image.size / 2);
    }
    await image.flush();
    parentPort!.postMessage(number + writesBetweenFlushes - 1);
  }
}

if (isMainThread) {
  const [path, threads] = process.argv.slice(2);
  const image = await openImage(path, { format: 'qcow2', cacheSize: 1 });
  for (let thread = 0; thread < Number(threads); thread++) {
    const worker = new Worker(fileURLToPath(import.meta.url), {
      workerData: { handle: image.handle(), thread },
    });
    worker.on('message', (flushed: number) => {
      process.stdout.write(`${thread} ${flushed}\n`);
    });
  }
} else {
  const { handle, thread } = workerData as { handle: ImageHandle; thread: number };
  await write(handle, thread);
}
