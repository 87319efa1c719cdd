/**
 * Requests through the library, as `qemu-img bench` makes them: a fixed depth, each request a step
 * further. Run as a program of its own; prints requests a second.
 *
 *     node dist/bench/requests.js FILE read|write DEPTH COUNT BYTES STEP [QUEUES]
 */
import { openImage } from '../src/index.js';
import type { RequestTarget } from '../src/index.js';

const [file = '', kind = 'read', ...numbers] = process.argv.slice(2);
const [depth = 64, count = 100_000, bytes = 4096, step = bytes, queueCount = 1] =
  numbers.map(Number);

const image = await openImage(file, { format: 'qcow2', readOnly: kind === 'read' });
const queues: RequestTarget[] = [image];
while (queues.length < queueCount) queues.push(await image.openQueue());
let next = 0;
let offset = 0;

async function lane(index: number): Promise<void> {
  const queue = queues[index % queues.length];
  const buffer = new Uint8Array(bytes).fill(index + 1);
  while (next < count) {
    next++;
    const at = offset;
    offset = (offset + step) % image.size;
    if (at + bytes > image.size) continue;
    if (kind === 'read') await queue.read(buffer, at);
    else await queue.write(buffer, at);
  }
}

const start = performance.now();
await Promise.all(Array.from({ length: depth }, (_, index) => lane(index)));
const seconds = (performance.now() - start) / 1000;
await image.close();
console.log(count / seconds);
