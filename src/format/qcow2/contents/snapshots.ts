/** The table of internal snapshots (specification, "Snapshots"); read here, not yet written. */
import { type CowherdError, cannotOpen } from '../../../errors.js';
import { maxSnapshotExtraBytes } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { SnapshotChoice } from '../../driver.js';
import type { SnapshotFacts } from '../../facts.js';
import type { Qcow2Header } from '../layout/header.js';
import { TableReader, isTableTooLong } from './snapshot-reader.js';
import { decodeText } from '../layout/stored-text.js';

const fixedLength = 40;
const noIcount = 2n ** 64n - 1n;
const nanosecondsPerSecond = 1_000_000_000n;

/** One internal snapshot. */
export interface Snapshot extends SnapshotFacts {
  /** Host offset in bytes and entry count of its L1 table, whatever they are. */
  readonly l1Offset: number;
  readonly l1Entries: number;
  /** Virtual size in bytes when it was taken. */
  readonly size: number;
}

/** The snapshots of an image, and the bytes their table takes. */
export interface SnapshotTable {
  readonly snapshots: readonly Snapshot[];
  readonly lengthBytes: number;
}

/**
 * Reads the snapshot table of an image; beyond the file there are zeroes.
 *
 * @throws ERR_COWHERD_INVALID_IMAGE for a table that only a repair cuts to size
 */
export async function readSnapshots(
  file: StorageFile,
  header: Qcow2Header,
): Promise<SnapshotTable> {
  const { filename } = file;
  const invalid = (message: string, hint: string): CowherdError =>
    cannotOpen('ERR_COWHERD_INVALID_IMAGE', filename, message, {
      hint: `You can force-remove ${hint} with cowherd check -r all`,
    });
  const reader = new TableReader(file, header.snapshotsOffset);
  const snapshots: Snapshot[] = [];
  for (let index = 0; index < header.snapshotCount; index++) {
    reader.align();
    const fixed = await reader.take(fixedLength);
    const view = new DataView(fixed.buffer);
    const extraLength = view.getUint32(36);
    if (extraLength > maxSnapshotExtraBytes) {
      throw invalid(
        `Too much extra metadata in snapshot table entry ${index}`,
        'this extra metadata',
      );
    }
    const extra = await reader.take(extraLength);
    const idLength = view.getUint16(12);
    const names = await reader.take(idLength + view.getUint16(14));
    if (isTableTooLong(reader.position, reader.position)) {
      const rest = header.snapshotCount - index;
      throw invalid('Snapshot table is too big', `all ${rest} overhanging snapshots`);
    }
    snapshots.push(decodeSnapshot(view, new DataView(extra.buffer), names, header.size));
  }
  return { snapshots, lengthBytes: reader.position };
}

function decodeSnapshot(
  fixed: DataView,
  extra: DataView,
  names: Uint8Array,
  diskSize: number,
): Snapshot {
  const length = extra.byteLength;
  const idLength = fixed.getUint16(12);
  const clock = fixed.getBigUint64(24);
  const icount = length >= 24 ? extra.getBigUint64(16) : noIcount;
  return {
    id: decodeText(names.subarray(0, idLength)),
    name: decodeText(names.subarray(idLength)),
    l1Offset: Number(fixed.getBigUint64(0)),
    l1Entries: fixed.getUint32(8),
    size: length >= 16 ? Number(extra.getBigUint64(8)) : diskSize,
    vmStateSize: length >= 8 ? Number(extra.getBigUint64(0)) : fixed.getUint32(32),
    dateSeconds: fixed.getUint32(16),
    dateNanoseconds: fixed.getUint32(20),
    vmClockSeconds: Number(clock / nanosecondsPerSecond),
    vmClockNanoseconds: Number(clock % nanosecondsPerSecond),
    icount: icount === noIcount ? undefined : Number(icount),
  };
}

/** The snapshot that is meant, as qemu-img looks it up. */
export function findSnapshot(
  snapshots: readonly Snapshot[],
  choice: SnapshotChoice,
): Snapshot | undefined {
  if (typeof choice === 'string') {
    return findSnapshot(snapshots, { id: choice }) ?? findSnapshot(snapshots, { name: choice });
  }
  return snapshots.find(
    ({ id, name }) => (choice.id ?? id) === id && (choice.name ?? name) === name,
  );
}

/** A choice in words. */
export function describeChoice(choice: SnapshotChoice): string {
  return typeof choice === 'string' ? choice : Object.values(choice).join(' ');
}
