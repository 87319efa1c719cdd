/** The crash log: what is recorded, in which order, and when a change is surely on disk. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CrashLog, CrashLogFile, durableFrom } from '../../../src/storage/filters/crash-log.js';
import { FaultFile, FaultPlan } from '../../../src/storage/filters/fault.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../../src/storage/storage.js';

const buffer = new Uint8Array(512).fill(1);

/** A file whose operations happen when the test says so. */
function heldFile(): { file: CrashLogFile; log: CrashLog; work: (() => void)[] } {
  const work: (() => void)[] = [];
  const schedule = (piece: () => void): void => {
    work.push(piece);
  };
  const log = new CrashLog();
  return { file: new CrashLogFile(new MemoryFile('disk', { schedule }), log), log, work };
}

test('every kind of change is recorded, by whichever queue it comes', async () => {
  const log = new CrashLog();
  const file = new CrashLogFile(new MemoryFile(), log);
  const queue = file.openQueue();
  await file.write(buffer, 0);
  await queue.writeVector([buffer, buffer.slice().fill(2)], 512);
  await file.writeZeroes(4096, 100, true);
  await queue.discard(0, 512);
  await file.allocate(8192, 10, 'falloc');
  await file.truncate(9000);
  await queue.flush();
  await file.close();
  assert.deepEqual(
    log.changes.map(({ kind, offset, length }) => [kind, offset, length]),
    [
      ['write', 0, 512],
      ['write', 512, 1024],
      ['writeZeroes', 4096, 100],
      ['discard', 0, 512],
      ['allocate', 8192, 10],
      ['truncate', 9000, 0],
    ],
  );
  assert.deepEqual([...new Set(log.changes[1].bytes)], [1, 2]);
  assert.equal(log.barriers.length, 1);
});

test('a write is recorded as it was when it was submitted', async () => {
  const { file, log, work } = heldFile();
  const bytes = buffer.slice();
  const write = file.write(bytes, 0);
  bytes.fill(9);
  work.shift()?.();
  await write;
  assert.equal(log.changes[0].bytes?.[0], 1);
});

test('a change is on disk after a barrier that was submitted after it had completed', async () => {
  const { file, log, work } = heldFile();
  const early = file.write(buffer, 0);
  const late = file.write(buffer, 512);
  work.shift()?.();
  await early;
  const first = file.flush();
  work.shift()?.();
  await late;
  work.shift()?.();
  await first;
  assert.equal(durableFrom(log.changes[0], log.barriers), log.barriers[0].completed);
  assert.equal(durableFrom(log.changes[1], log.barriers), Infinity, 'it was still under way');
  const second = file.flush();
  assert.equal(durableFrom(log.changes[1], log.barriers), Infinity, 'the barrier is under way');
  work.shift()?.();
  await second;
  assert.equal(durableFrom(log.changes[1], log.barriers), log.barriers[1].completed);
});

test('a change that fails is pending for ever, a barrier that fails is none', async () => {
  const log = new CrashLog();
  const plan = new FaultPlan({ kinds: ['write', 'flush'], nth: 2 });
  const file = new CrashLogFile(new FaultFile(new MemoryFile(), plan), log);
  await file.write(buffer, 0);
  await assert.rejects(file.flush(), { code: 'ERR_COWHERD_IO' });
  assert.equal(durableFrom(log.changes[0], log.barriers), Infinity);
  await file.flush();
  assert.notEqual(durableFrom(log.changes[0], log.barriers), Infinity);

  const failing = new FaultPlan({ kinds: ['write'], nth: 1 });
  const other = new CrashLogFile(new FaultFile(new MemoryFile(), failing), new CrashLog());
  await assert.rejects(other.write(buffer, 0), { code: 'ERR_COWHERD_IO' });
  await other.flush();
  assert.equal(durableFrom(other.log.changes[0], other.log.barriers), Infinity);
});

test('a copy within the host is declined', async () => {
  const file: StorageFile = new CrashLogFile(new MemoryFile(), new CrashLog());
  assert.equal(await file.copyFrom(new MemoryFile(), 0, 0, 512), false);
});
