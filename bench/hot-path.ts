/**
 * What a mapped, cached read costs in JavaScript: reads at depth 64 of a real image on a file that
 * ends every read at once, in batches of a tick as the ring does, and transfers nothing.
 * Prints microseconds a request.
 *
 *     node dist/bench/hot-path.js FILE
 */
import { openImageOn } from '../src/image/graph/open.js';
import { openStorageFile } from '../src/storage/registry.js';
import { NoTransfer } from './no-transfer.js';

const depth = 64;
const blockBytes = 4096;
const warmRequests = 300_000;
const requests = 2_000_000;

const [path = ''] = process.argv.slice(2);
const file = NoTransfer.over(await openStorageFile(path, { readOnly: true }));
const image = await openImageOn(file, { format: 'qcow2', readOnly: true });
const blocks = Math.floor(image.size / blockBytes);
let left = 0;
let place = 0;

async function lane(): Promise<void> {
  const buffer = new Uint8Array(blockBytes);
  while (left > 0) {
    left--;
    place = (place + 104_729) % blocks;
    await image.read(buffer, place * blockBytes);
  }
}

async function run(count: number): Promise<number> {
  left = count;
  const begun = performance.now();
  await Promise.all(Array.from({ length: depth }, lane));
  return ((performance.now() - begun) * 1000) / count;
}

await run(warmRequests);
file.idle = true;
await run(warmRequests);
console.log(await run(requests));
await image.close();
