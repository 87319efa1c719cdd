/** What a queue's requests say when a thread has died that held a lock they need. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ControlWord, GateState } from '../../../../src/engine/words/control-block.js';
import type { Qcow2Image } from '../../../../src/format/qcow2/image.js';
import { asGuestOffset } from '../../../../src/format/qcow2/layout/geometry.js';
import { formatFile } from '../../../../src/image/graph/create.js';
import { MemoryFile } from '../../../../src/storage/memory/memory-file.js';
import { openOver } from '../../../crash/open-over.js';

const clusterBytes = 65_536;

for (const kind of ['read', 'write', 'first write'] as const) {
  test(`a ${kind} that waits for a dead thread's slice is rejected, and throws nothing`, async (t) => {
    const file = new MemoryFile('disk');
    await formatFile(file, { format: 'qcow2', size: 16 * clusterBytes });
    let format: Qcow2Image | undefined;
    const files = { file, dataFile: undefined, backing: undefined };
    const image = await openOver(files, (opened) => (format = opened));
    await image.write(new Uint8Array(clusterBytes).fill(1), 0);
    const { metadata } = format!;
    const { control, l2Cache, poison } = metadata;
    const slot = l2Cache.find(metadata.sliceKey(asGuestOffset(0)));
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
        ? image.read(buffer, 0)
        : image.write(buffer, kind === 'write' ? 0 : 4 * clusterBytes);
    await assert.rejects(request, { code: 'ERR_COWHERD_POISONED', filename: 'disk' });
  });
}
