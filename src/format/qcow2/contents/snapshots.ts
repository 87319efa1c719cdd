/** The table of internal snapshots (specification, "Snapshots"). */
import { bytesOfName } from '../../../byte-names.js';
import { type CowherdError, cannotOpen } from '../../../errors.js';
import { maxSnapshotExtraBytes } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { SnapshotChoice } from '../../driver.js';
import type { SnapshotFacts } from '../../facts.js';
import type { HostOffset } from '../layout/geometry.js';
import type { Qcow2Header } from '../layout/header.js';
import { TableReader, isTableTooLong } from './snapshot-reader.js';
import { decodeText } from '../layout/stored-text.js';

const fixedLength = 40;
/** Extra data that version 3 requires, and that is written: VM state size, disk size, icount. */
export const requiredExtraLength = 16;
const writtenExtraLength = 24;
const noIcount = 2n ** 64n - 1n;
const nanosecondsPerSecond = 1_000_000_000n;

/** The parts of an entry of the table as they stand in the file. */
export interface StoredSnapshot {
  readonly fixed: Uint8Array;
  /** What versions of the format have added; what is not known here is kept. */
  readonly extra: Uint8Array;
  /** Id and name, one behind the other. */
  readonly names: Uint8Array;
}

/** One internal snapshot. */
export interface Snapshot extends SnapshotFacts {
  readonly stored: StoredSnapshot;
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
    snapshots.push(decodeSnapshot({ fixed, extra, names }, header.size));
  }
  return { snapshots, lengthBytes: reader.position };
}

function decodeSnapshot(stored: StoredSnapshot, diskSize: number): Snapshot {
  const { names } = stored;
  const fixed = viewOf(stored.fixed);
  const extra = viewOf(stored.extra);
  const length = extra.byteLength;
  const idLength = fixed.getUint16(12);
  const clock = fixed.getBigUint64(24);
  const icount = length >= 24 ? extra.getBigUint64(16) : noIcount;
  return {
    stored,
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

/** Whether an entry says all that version 3 asks for: how large the state of the machine is, and the disk. */
export function isComplete({ extra }: StoredSnapshot): boolean {
  return extra.length >= requiredExtraLength;
}

/** What a new entry says. */
export interface NewSnapshot {
  readonly id: string;
  readonly name: string;
  /** Host offset in bytes and entry count of its L1 table. */
  readonly l1Offset: HostOffset;
  readonly l1Entries: number;
  /** Virtual size of the disk in bytes. */
  readonly size: number;
  /** When it was taken, in seconds since 1970 and nanoseconds. */
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
}

/** The entry of a snapshot without the state of a machine. */
export function newEntry(snapshot: NewSnapshot): StoredSnapshot {
  const id = bytesOfName(snapshot.id);
  const name = bytesOfName(snapshot.name);
  const names = new Uint8Array(id.length + name.length);
  names.set(id);
  names.set(name, id.length);
  const fixed = new Uint8Array(fixedLength);
  const view = viewOf(fixed);
  view.setBigUint64(0, BigInt(snapshot.l1Offset));
  view.setUint32(8, snapshot.l1Entries);
  view.setUint16(12, id.length);
  view.setUint16(14, name.length);
  view.setUint32(16, snapshot.dateSeconds);
  view.setUint32(20, snapshot.dateNanoseconds);
  const extra = new Uint8Array(writtenExtraLength);
  // As QEMU's tools have it, no instruction was executed.
  viewOf(extra).setBigUint64(8, BigInt(snapshot.size));
  return { fixed, extra, names };
}

/**
 * The bytes of a snapshot table in which every entry is complete.
 *
 * @param diskSize bytes, for entries that do not say how large the disk was
 */
export function encodeSnapshots(
  snapshots: readonly StoredSnapshot[],
  diskSize: number,
): Uint8Array {
  const parts: Uint8Array[] = [];
  let length = 0;
  const add = (bytes: Uint8Array): void => {
    parts.push(bytes);
    length += bytes.length;
  };
  for (const { fixed, extra, names } of snapshots) {
    add(new Uint8Array(Math.ceil(length / 8) * 8 - length));
    const whole = new Uint8Array(Math.max(extra.length, writtenExtraLength));
    whole.set(extra);
    const to = viewOf(whole);
    if (extra.length < 8) to.setBigUint64(0, BigInt(viewOf(fixed).getUint32(32)));
    if (extra.length < requiredExtraLength) to.setBigUint64(8, BigInt(diskSize));
    if (extra.length < writtenExtraLength) to.setBigUint64(16, noIcount);
    const entry = fixed.slice();
    viewOf(entry).setUint32(36, whole.length);
    add(entry);
    add(whole);
    add(names);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

/** What is told of a snapshot. */
export function snapshotFacts(snapshot: Snapshot): SnapshotFacts {
  return {
    id: snapshot.id,
    name: snapshot.name,
    vmStateSize: snapshot.vmStateSize,
    dateSeconds: snapshot.dateSeconds,
    dateNanoseconds: snapshot.dateNanoseconds,
    vmClockSeconds: snapshot.vmClockSeconds,
    vmClockNanoseconds: snapshot.vmClockNanoseconds,
    icount: snapshot.icount,
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
