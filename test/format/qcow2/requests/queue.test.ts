/** What a queue's requests say when a thread has died that held a lock they need. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { QueueCounters } from '../../../../src/engine/counters.js';
import { GateState, ControlWord } from '../../../../src/engine/control-block.js';
import { openQcow2, readQcow2Header } from '../../../../src/format/qcow2/image.js';
import { formatFile } from '../../../../src/image/create.js';
import { allocateSharedState } from '../../../../src/image/shared-state.js';
import { MemoryFile } from '../../../../src/storage/memory.js';

const clusterBytes = 65_536;

for (const kind of ['read', 'write', 'first write'] as const) {
  test(`a ${kind} that waits for a dead thread's slice is rejected, and throws nothing`, async (t) => {
    const file = new MemoryFile('disk');
    await formatFile(file, { format: 'qcow2', size: 16 * clusterBytes });
    const counters = QueueCounters.take(allocateSharedState().counters);
    const format = await openQcow2(file, await readQcow2Header(file), {
      counters,
      dataFile: undefined,
      readOnly: false,
      forCheck: false,
      onFinding: undefined,
      cacheBytes: 0,
      overlapCheck: 'all',
      lazyRefcounts: undefined,
      inOrder: false,
      snapshot: undefined,
    });
    const queue = format.openQueue(file, undefined, undefined, counters);
    await queue.write(new Uint8Array(clusterBytes).fill(1), 0);
    const { control, l2Cache, poison } = format.metadata;
    const slot = l2Cache.find(format.metadata.sliceKey(0));
    assert.ok(slot >= 0);
    l2Cache.lockExclusive(slot);
    // It dies while the request waits for the slice, and not before it has passed the gate.
    t.mock.method(poison, 'check', () => {
      control.store(ControlWord.gate, GateState.poisoned);
      throw poison.error();
    });
    const buffer = new Uint8Array(512);
    const request =
      kind === 'read'
        ? queue.read(buffer, 0)
        : queue.write(buffer, kind === 'write' ? 0 : 4 * clusterBytes);
    await assert.rejects(request, { code: 'ERR_COWHERD_POISONED', filename: 'disk' });
  });
}
