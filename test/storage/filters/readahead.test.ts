/** The filter `readahead`: fewer waits for reads in sequence, none more for others, and never old bytes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CowherdError } from '../../../src/errors.js';
import { FaultFile, FaultPlan } from '../../../src/storage/filters/fault.js';
import { withFilters } from '../../../src/storage/filters/registry.js';
import { TraceFile } from '../../../src/storage/filters/trace.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../../src/storage/storage.js';

const mib = 1024 * 1024;

/** A file of 8 MiB under the filter, and what reads reach it. */
async function ahead(
  window = '1M',
): Promise<{ inner: MemoryFile; file: StorageFile; reads: { offset: number; length: number }[] }> {
  const inner = new MemoryFile();
  await inner.write(
    Uint8Array.from({ length: 8 * mib }, (_, at) => (at >> 9) & 0xff),
    0,
  );
  const reads: { offset: number; length: number }[] = [];
  const traced = new TraceFile(inner, ({ kind, offset, length }) => {
    if (kind === 'read') reads.push({ offset, length });
  });
  const file = await withFilters(traced, [{ name: 'readahead', window }], openStorageFile);
  return { inner, file, reads };
}

async function expectByte(file: StorageFile, offset: number, length: number): Promise<void> {
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  assert.ok(bytes.every((byte, index) => byte === (((offset + index) >> 9) & 0xff)));
}

test('reads in sequence are few and large below, and bounded', async () => {
  const { file, reads } = await ahead();
  for (let offset = 0; offset < 8 * mib; offset += 4096) await expectByte(file, offset, 4096);
  assert.ok(reads.length < 80, `${reads.length} reads for 2048`);
  const total = reads.reduce((sum, { length }) => sum + length, 0);
  assert.ok(total < 8.5 * mib, `${total} bytes read`);
  assert.ok(reads.every(({ offset, length }) => length <= mib && offset < 8 * mib));
  await file.close();
});

test('what is asked for next has been read already', async () => {
  const { file, reads } = await ahead();
  for (let offset = 0; offset < mib; offset += 65_536) await expectByte(file, offset, 65_536);
  await new Promise(setImmediate);
  const before = reads.length;
  await expectByte(file, mib, 65_536);
  assert.ok(reads.slice(before).every(({ offset }) => offset > mib + 65_536));
  await file.close();
});

test('several readers in sequence take turns', async () => {
  const { file, reads } = await ahead();
  for (let at = 0; at < 2 * mib; at += 16_384) {
    await expectByte(file, at, 16_384);
    await expectByte(file, 4 * mib + at, 16_384);
  }
  assert.ok(reads.length < 100, `${reads.length} reads for 256`);
  await file.close();
});

test('reads here and there are passed on as they are', async () => {
  const { file, reads } = await ahead();
  const wanted = Array.from({ length: 50 }, (_, index) => ((index * 7919) % 1900) * 4096);
  for (const offset of wanted) await expectByte(file, offset, 512);
  assert.deepEqual(
    reads,
    wanted.map((offset) => ({ offset, length: 512 })),
  );
  await file.close();
});

test('what is written through any queue is read at once', async () => {
  const { file } = await ahead();
  const queue = file.openQueue();
  for (let offset = 0; offset < mib; offset += 65_536) await expectByte(file, offset, 65_536);
  await queue.write(new Uint8Array(4096).fill(0xfe), mib + 4096);
  const bytes = new Uint8Array(65_536);
  await file.read(bytes, mib);
  assert.equal(bytes[4096], 0xfe);
  await queue.truncate(mib + 65_536 + 10);
  await file.read(bytes, mib + 65_536);
  assert.equal(bytes[10], 0, 'beyond the end');
  await queue.close();
  await file.close();
});

test('what could not be read ahead fails only who asks for it', async () => {
  const inner = new MemoryFile();
  await inner.write(new Uint8Array(mib).fill(1), 0);
  const plan = new FaultPlan({ kinds: ['read'], nth: 6, forever: true });
  const file = await withFilters(
    new FaultFile(inner, plan),
    [{ name: 'readahead', window: '64k' }],
    openStorageFile,
  );
  const results: string[] = [];
  for (let offset = 0; offset < 20 * 8192; offset += 8192) {
    const result = file.read(new Uint8Array(8192), offset);
    results.push(
      await result.then(() => 'ok').catch((error: unknown) => (error as CowherdError).code),
    );
  }
  assert.equal(results[0], 'ok');
  assert.deepEqual([...new Set(results)], ['ok', 'ERR_COWHERD_IO']);
  await file.close();
});

test('closing waits for reads that have to be done again', async () => {
  const inner = new MemoryFile();
  await inner.write(new Uint8Array(mib).fill(1), 0);
  // Only what is read ahead is read in whole blocks.
  const isAhead = (length: number): boolean => length === 8192;
  const failing = new (class extends TraceFile {
    override read(buffer: Uint8Array, offset: number): Promise<void> {
      return isAhead(buffer.length)
        ? Promise.reject(new Error('not ahead'))
        : super.read(buffer, offset);
    }
  })(inner, () => undefined);
  const file = await withFilters(failing, [{ name: 'readahead', window: '64k' }], openStorageFile);
  for (let offset = 0; offset < 40_960; offset += 4096) {
    await file.read(new Uint8Array(4096), offset);
  }
  const bytes = new Uint8Array(4096);
  const [read] = await Promise.allSettled([file.read(bytes, 40_960), file.close()]);
  assert.equal(read.status, 'fulfilled');
  assert.ok(bytes.every((byte) => byte === 1));
});
