/** Pieces of tables that are remembered while their changes are on the way to the file. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TableCache } from '../../../src/format/mapped/table-cache.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';

const pieceBytes = 64 * 1024;

test('changes that were taken are seen until the file has them, whatever else is looked at', async () => {
  const content = new MemoryContent();
  const file = new MemoryFile('tables', { content });
  const tables = new TableCache(file);
  const setTo = (value: number) => (view: DataView) => {
    view.setUint8(0, value);
  };
  await tables.edit(1000, 1, setTo(7));
  const changes = tables.takeChanges()!;
  await tables.edit(5000, 1, setTo(8));
  for (let piece = 1; piece < 400; piece++) await tables.view(piece * pieceBytes);
  assert.equal((await tables.view(1000)).getUint8(0), 7);
  await changes.write();
  changes.end(true);
  const bytes = new Uint8Array(6000);
  content.read(bytes, 0);
  assert.deepEqual([bytes[1000], bytes[5000]], [7, 0]);
  const next = tables.takeChanges()!;
  await next.write();
  next.end(false);
  content.read(bytes, 0);
  assert.deepEqual([bytes[1000], bytes[5000]], [7, 8]);
  assert.notEqual(tables.takeChanges(), undefined);
});
