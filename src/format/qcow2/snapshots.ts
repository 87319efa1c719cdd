/** The table of internal snapshots (specification, "Snapshots"); read here, not yet written. */
import { CowherdError } from '../../errors.js';
import { maxL1TableBytes, maxSnapshotExtraBytes, maxSnapshotTableBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { Qcow2Header } from './header.js';
import { decodeText } from './text.js';

const fixedLength = 40;
const two32 = 0x100000000;

/** One internal snapshot. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  /** Host offset in bytes and entry count of its L1 table. */
  readonly l1Offset: number;
  readonly l1Entries: number;
  /** Virtual size in bytes when it was taken. */
  readonly size: number;
  readonly vmStateSize: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  readonly vmClockNanoseconds: number;
  readonly icount: number | undefined;
}

/** The snapshots of an image, and the bytes their table takes. */
export interface SnapshotTable {
  readonly snapshots: readonly Snapshot[];
  readonly lengthBytes: number;
}

/** Reads the snapshot table of an image. */
export async function readSnapshots(
  file: StorageFile,
  header: Qcow2Header,
): Promise<SnapshotTable> {
  const { filename } = file;
  const invalid = (message: string): CowherdError =>
    new CowherdError('ERR_COWHERD_INVALID_IMAGE', `Could not open '${filename}': ${message}`, {
      filename,
      offset: header.snapshotsOffset,
    });
  if (header.snapshotCount === 0) return { snapshots: [], lengthBytes: 0 };
  const available = (await file.size()) - header.snapshotsOffset;
  const longest = header.snapshotCount * (fixedLength + maxSnapshotExtraBytes + 2 * 0xffff + 8);
  const bytes = new Uint8Array(Math.max(0, Math.min(available, longest, maxSnapshotTableBytes)));
  if (bytes.length > 0) await file.read(bytes, header.snapshotsOffset);
  const view = new DataView(bytes.buffer);
  const snapshots: Snapshot[] = [];
  let offset = 0;
  for (let index = 0; index < header.snapshotCount; index++) {
    offset = Math.ceil(offset / 8) * 8;
    if (offset + fixedLength > bytes.length) throw invalid('Snapshot table is truncated');
    const extraLength = view.getUint32(offset + 36);
    const idLength = view.getUint16(offset + 12);
    const nameLength = view.getUint16(offset + 14);
    if (extraLength > maxSnapshotExtraBytes) throw invalid('Too much extra data in snapshot');
    const idStart = offset + fixedLength + extraLength;
    const end = idStart + idLength + nameLength;
    if (end > bytes.length) throw invalid('Snapshot table is truncated');
    const big = (at: number, name: string): number => {
      const value = view.getUint32(at) * two32 + view.getUint32(at + 4);
      if (value > Number.MAX_SAFE_INTEGER) throw invalid(`Snapshot ${name} is too large`);
      return value;
    };
    const extra = offset + fixedLength;
    const text = (start: number, length: number): string =>
      decodeText(bytes.subarray(start, start + length));
    const l1Entries = view.getUint32(offset + 8);
    if (l1Entries * 8 > maxL1TableBytes) throw invalid('Snapshot L1 table too large');
    const icount = extraLength >= 24 ? view.getBigUint64(extra + 16) : 2n ** 64n - 1n;
    snapshots.push({
      id: text(idStart, idLength),
      name: text(idStart + idLength, nameLength),
      l1Offset: big(offset, 'L1 table offset'),
      l1Entries,
      size: extraLength >= 16 ? big(extra + 8, 'disk size') : header.size,
      vmStateSize: extraLength >= 8 ? big(extra, 'VM state size') : view.getUint32(offset + 32),
      dateSeconds: view.getUint32(offset + 16),
      dateNanoseconds: view.getUint32(offset + 20),
      vmClockNanoseconds: big(offset + 24, 'VM clock'),
      icount: icount > BigInt(Number.MAX_SAFE_INTEGER) ? undefined : Number(icount),
    });
    offset = end;
  }
  return { snapshots, lengthBytes: offset };
}

/** The snapshot with an id, or else with a name, as qemu-img looks it up. */
export function findSnapshot(
  snapshots: readonly Snapshot[],
  idOrName: string,
): Snapshot | undefined {
  return (
    snapshots.find((snapshot) => snapshot.id === idOrName) ??
    snapshots.find((snapshot) => snapshot.name === idOrName)
  );
}
