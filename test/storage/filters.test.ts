/** The filters: which operations fail, what is recorded, and that the rest passes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FaultFile, FaultPlan } from '../../src/storage/filters/fault.js';
import type { StorageOperation } from '../../src/storage/filters/filter-file.js';
import { TraceFile } from '../../src/storage/filters/trace.js';
import { MemoryFile } from '../../src/storage/memory/memory-file.js';

const buffer = new Uint8Array(512).fill(1);

test('a fault strikes the nth operation of its kinds, once', async () => {
  const plan = new FaultPlan({ kinds: ['write', 'flush'], nth: 2, errno: 'ENOSPC' });
  const file = new FaultFile(new MemoryFile('disk'), plan);
  await file.write(buffer, 0);
  await file.read(buffer, 0);
  await assert.rejects(file.flush(), {
    code: 'ERR_COWHERD_NO_SPACE',
    message: "Injected fault: flush of 'disk' at byte 0: No space left on device",
  });
  await file.write(buffer, 512);
  assert.equal(plan.seen, 3);
  assert.equal(await file.size(), 1024);
});

test('a lasting fault strikes every later operation of every queue', async () => {
  const plan = new FaultPlan({ kinds: ['write'], nth: 2, forever: true });
  const file = new FaultFile(new MemoryFile(), plan);
  const queue = file.openQueue();
  await queue.write(buffer, 0);
  await assert.rejects(file.writeVector([buffer], 4096), { code: 'ERR_COWHERD_IO', offset: 4096 });
  await assert.rejects(queue.write(buffer, 0), { code: 'ERR_COWHERD_IO' });
  assert.equal(await file.size(), 512, 'what failed changed nothing');
});

test('a fault on the hot path completes later, not within the call', async () => {
  const file = new FaultFile(new MemoryFile(), new FaultPlan({ kinds: ['read'], nth: 1 }));
  let within = true;
  const error = await new Promise<Error | null>((resolve) => {
    file.submitRead(buffer, 0, {
      complete: (failure) => {
        assert.equal(within, false);
        resolve(failure);
      },
    });
    within = false;
  });
  assert.equal((error as { code?: string } | null)?.code, 'ERR_COWHERD_IO');
});

test('a trace tells of every operation', async () => {
  const operations: StorageOperation[] = [];
  const file = new TraceFile(new MemoryFile(), (operation) => {
    operations.push(operation);
  });
  const queue = file.openQueue();
  await file.write(buffer, 0);
  await queue.writeVector([buffer, buffer], 512);
  await file.writeZeroes(4096, 100, true);
  await file.discard(0, 512);
  await file.copyFrom(queue, 0, 8192, 512);
  await file.truncate(9000);
  await file.flush();
  await file.close();
  assert.deepEqual(
    operations.map(({ kind, offset, length }) => [kind, offset, length]),
    [
      ['write', 0, 512],
      ['write', 512, 1024],
      ['writeZeroes', 4096, 100],
      ['discard', 0, 512],
      ['copyFrom', 8192, 512],
      ['truncate', 9000, 0],
      ['flush', 0, 0],
      ['close', 0, 0],
    ],
  );
});
