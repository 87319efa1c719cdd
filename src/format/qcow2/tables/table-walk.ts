/**
 * Walking whole L2 tables or refcount blocks in the order of their pointers, several reads ahead:
 * for reports about the whole image, which would only wash the caches out.
 */
import { TurnOfOthers } from '../../../turn-of-others.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { HostOffset } from '../layout/geometry.js';

/** Bytes of tables read ahead. */
const readAheadBytes = 8 * 1024 * 1024;

/** A table that was read. */
export interface WalkedTable {
  /** Index of its pointer in the table above. */
  readonly index: number;
  readonly hostOffset: HostOffset;
  /** The table's bytes; valid until the walk goes on. */
  readonly view: DataView;
}

/** A table to be read. */
export interface TablePointer {
  readonly index: number;
  readonly hostOffset: HostOffset;
}

/**
 * Reads tables of `tableBytes` bytes, one after the other, with some reads under way ahead. Between two the
 * event loop may go round, so the caller looks at its signal for each.
 *
 * @param spare buffers of that size to begin with; those the walk has used are added to it
 */
export async function* walkTables(
  file: StorageFile,
  pointers: Iterable<TablePointer>,
  tableBytes: number,
  spare: Uint8Array<ArrayBuffer>[] = [],
): AsyncGenerator<WalkedTable> {
  const depth = Math.max(2, Math.floor(readAheadBytes / tableBytes));
  const ahead: { pointer: TablePointer; bytes: Uint8Array<ArrayBuffer>; read: Promise<void> }[] =
    [];
  const source = pointers[Symbol.iterator]();
  const start = (): void => {
    const next = source.next();
    if (next.done === true) return;
    const bytes = spare.pop() ?? new Uint8Array(tableBytes);
    const read = file.read(bytes, next.value.hostOffset);
    // Whoever takes it from the queue sees the failure; until then it must not go unhandled.
    read.catch(() => undefined);
    ahead.push({ pointer: next.value, bytes, read });
  };
  // What is in the host's memory is read without a turn of the event loop.
  const others = new TurnOfOthers();
  for (let count = 0; count < depth; count++) start();
  try {
    for (let next; (next = ahead.shift()) !== undefined;) {
      await next.read;
      if (others.due) await others.take();
      yield { ...next.pointer, view: new DataView(next.bytes.buffer) };
      spare.push(next.bytes);
      start();
    }
  } finally {
    await Promise.allSettled(ahead.map(({ read }) => read));
  }
}
