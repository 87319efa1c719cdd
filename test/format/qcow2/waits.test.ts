/** Every wait of one request of a qcow2 image for another names who holds it up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turnstile } from '../../../src/engine/queues/turnstile.js';
import { Watchdog } from '../../../src/engine/words/watchdog.js';
import {
  type ReadTable,
  TableThreads,
} from '../../../src/format/qcow2/check/threads/check-tables.js';
import type { Qcow2Image } from '../../../src/format/qcow2/image.js';
import { asGuestOffset, asHostOffset } from '../../../src/format/qcow2/layout/geometry.js';
import { CompressedReader } from '../../../src/format/qcow2/requests/compressed-reader.js';
import { ImageCodec } from '../../../src/format/qcow2/requests/image-codec.js';
import { CompressedWriter } from '../../../src/format/qcow2/requests/compressed-writer.js';
import { InflatedClusters } from '../../../src/format/qcow2/requests/inflated-clusters.js';
import type { QueueContext } from '../../../src/format/qcow2/requests/queue-context.js';
import { Reader } from '../../../src/format/qcow2/requests/reader.js';
import { Writer } from '../../../src/format/qcow2/requests/writer.js';
import { formatFile } from '../../../src/image/graph/create.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { openOver } from '../../crash/open-over.js';
import { Hold, stallOf } from '../../support/stalls.js';
import { openContext } from './requests/open-context.js';

const clusterBytes = 65_536;
const limitMs = 200;
process.env['COWHERD_STALL_SECONDS'] = String(limitMs / 1000);

function writerOf(context: QueueContext): Writer {
  const { file, metadata } = context;
  const compressed = new CompressedReader(
    file,
    clusterBytes,
    metadata.control,
    new ImageCodec({ compressionType: 'zlib' }),
  );
  return new Writer(context, new Reader(context, compressed));
}

test('a write that waits for its turn names the write that has it', async (t) => {
  const context = await openContext(64 * clusterBytes);
  const { control, allocator } = context.metadata;
  const hold = new Hold();
  const reserve = allocator.reserve.bind(allocator);
  t.mock.method(allocator, 'reserve', async (...of: Parameters<typeof reserve>) => {
    await hold.gone;
    return reserve(...of);
  });
  const writer = writerOf({ ...context, turns: new Turnstile(control.watchdog) });
  const bytes = new Uint8Array(clusterBytes).fill(1);
  const writes = [3, 5].map((at) => writer.write(bytes, asGuestOffset(at * clusterBytes)));
  const message = await stallOf(async () => {
    hold.letGo();
    await Promise.all(writes);
  });
  assert.match(message, /its turn to take clusters, which the write at guest offset 196608 has$/);
});

test('compressed data that wait for a place name the write before', async (t) => {
  const context = await openContext(64 * clusterBytes);
  const { allocator } = context.metadata;
  const hold = new Hold();
  const raise = allocator.raise.bind(allocator);
  t.mock.method(allocator, 'raise', async (...of: Parameters<typeof raise>) => {
    await hold.gone;
    await raise(...of);
  });
  const compressed = new CompressedWriter(
    context,
    writerOf(context),
    new ImageCodec({ compressionType: 'zlib' }),
  );
  const bytes = new Uint8Array(clusterBytes).fill(1);
  const writes = [2, 4].map((at) => compressed.write(bytes, asGuestOffset(at * clusterBytes)));
  const message = await stallOf(async () => {
    hold.letGo();
    await Promise.all(writes);
  });
  assert.match(message, /a place behind the data of the compressed write at guest offset \d+$/);
});

test('a part of a cluster that another request inflates names it', async () => {
  const hold = new Hold();
  const inflate = async (): Promise<void> => {
    await hold.gone;
  };
  const clusters = new InflatedClusters(512, inflate, new Watchdog('disk', limitMs));
  const place = asHostOffset(7 * 512);
  const reads = [0, 9].map((within) => clusters.read(place, 100, within, new Uint8Array(4)));
  const message = await stallOf(async () => {
    hold.letGo();
    await Promise.all(reads);
  });
  assert.match(message, /the compressed cluster at host offset 3584, which another request reads$/);
});

/** A file of which the operations of a kind are kept back while they are held. */
class HeldFile extends MemoryFile {
  hold: Hold | undefined;
  isHeld: (kind: 'write' | 'discard', offset: number) => boolean = () => false;

  override async write(buffer: Uint8Array, offset: number): Promise<void> {
    if (this.isHeld('write', offset)) await this.hold?.gone;
    await super.write(buffer, offset);
  }

  override async discard(offset: number, length: number): Promise<boolean> {
    if (this.isHeld('discard', offset)) await this.hold?.gone;
    return super.discard(offset, length);
  }
}

async function openHeld(lazyRefcounts: boolean) {
  const content = new MemoryContent();
  const options = { format: 'qcow2', size: 64 * clusterBytes, lazyRefcounts } as const;
  await formatFile(new MemoryFile('disk', { content }), options);
  const file = new HeldFile('disk', { content });
  file.hold = new Hold();
  let format: Qcow2Image | undefined;
  const image = await openOver({ file, dataFile: undefined, backing: undefined }, (opened) => {
    format = opened;
  });
  return { file, image, metadata: format!.metadata };
}

test('a first write beside another first one names who changes the header', async () => {
  const { file, image } = await openHeld(true);
  file.isHeld = (kind, offset) => kind === 'write' && offset === 0;
  const bytes = new Uint8Array(512).fill(1);
  const writes = [0, 8].map((at) => image.write(bytes, at * clusterBytes));
  const message = await stallOf(async () => {
    file.hold?.letGo();
    await Promise.all(writes);
  });
  assert.match(message, /for the header mutex, which thread 0 has held for \d+ s$/);
  await image.close();
});

test('flushes that free clusters in one pass name the queue of the pass', async () => {
  const { file, image } = await openHeld(false);
  await image.write(new Uint8Array(4 * clusterBytes).fill(1), 0);
  await image.flush();
  await image.discard(0, 4 * clusterBytes);
  file.isHeld = (kind) => kind === 'discard';
  const flushes = [image.flush(), image.flush()];
  const message = await stallOf(async () => {
    file.hold?.letGo();
    await Promise.all(flushes);
  });
  assert.match(message, /for clusters to be freed by queue 0 of thread 0$/);
  await image.close();
});

test('a check names the thread that has tables and does not answer', async () => {
  const silent = `import { parentPort } from 'node:worker_threads';
    parentPort.on('message', (order) => { if (order === 'end') process.exit(); });`;
  const module = new URL(`data:text/javascript,${encodeURIComponent(silent)}`);
  const orders = { file: { protocol: 'memory', filename: 'disk' } } as never;
  const threads = new TableThreads(module, orders, 1, clusterBytes);
  const tables = threads.read([{ index: 0, hostOffset: asHostOffset(clusterBytes) }], true);
  const next = tables.next();
  const message = await stallOf(async () => {
    await threads.close();
    const { value } = (await next) as IteratorResult<ReadTable, undefined>;
    assert.equal(value?.content, undefined);
  });
  assert.match(message, /^'disk': .* for thread 0 of the check, which has 1 batches of tables$/);
});
