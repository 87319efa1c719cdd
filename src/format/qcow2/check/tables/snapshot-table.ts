/**
 * The snapshot table as a check reads it, entry by entry and whatever is wrong with them, and as a
 * repair writes it anew (specification, "Snapshots").
 */
import { maxL1TableBytes, maxSnapshotExtraBytes, maxSnapshots } from '../../../../limits.js';
import { CheckGivenUp, type Findings } from '../findings/findings.js';
import type { CheckedImage } from './checked-image.js';
import { TableReader, isTableTooLong } from '../../contents/snapshot-reader.js';
import { type StoredSnapshot, requiredExtraLength } from '../../contents/snapshots.js';
import type { Geometry } from '../../layout/geometry.js';
import { decodeText } from '../../layout/stored-text.js';

const fixedBytes = 40;
const two32 = 0x100000000;

/** One entry of the table, with extra data at most as long as may be. */
export interface CheckedSnapshot extends StoredSnapshot {
  readonly id: string;
  readonly name: string;
  /** Host offset in bytes of its L1 table, in hexadecimal too where no number holds it. */
  readonly l1Offset: number;
  readonly l1OffsetHex: string;
  readonly l1Entries: number;
}

/**
 * What is wrong with the place or the length that an entry gives of its L1 table; `undefined` if the
 * table can be read. Exact also where no number holds the offset.
 */
export function l1TableFault(
  geometry: Geometry,
  { l1OffsetHex, l1Entries }: CheckedSnapshot,
): 'unaligned' | 'tooLarge' | undefined {
  if (Number.parseInt(l1OffsetHex.slice(-8), 16) % geometry.clusterSize !== 0) return 'unaligned';
  return l1Entries * 8 > maxL1TableBytes ? 'tooLarge' : undefined;
}

/** The snapshots of an image, and the bytes their table takes now. */
export interface CheckedSnapshots {
  readonly snapshots: readonly CheckedSnapshot[];
  readonly lengthBytes: number;
}

/**
 * Reads the snapshot table. With `repairing`, what is too much is cut off, in the header at once.
 *
 * @throws CheckGivenUp if the table cannot be made sense of
 */
export async function readCheckedSnapshots(
  image: CheckedImage,
  findings: Findings,
  repairing: boolean,
): Promise<CheckedSnapshots> {
  const { header, geometry } = image;
  const excess = Math.max(0, header.snapshotCount - maxSnapshots);
  let discarded = 0;
  if (excess > 0 && repairing) {
    findings.note('snapshotsDiscarded', `Discarding ${excess} overhanging snapshots`);
    discarded = excess;
  } else if (excess > 0) {
    findings.error('snapshotTable', 'ERROR snapshot table too large');
    findings.note(
      'snapshotTable',
      `You can force-remove all ${excess} overhanging snapshots with cowherd check -r all`,
    );
    throw new CheckGivenUp('EFBIG');
  }
  if (header.snapshotsOffset % geometry.clusterSize !== 0) {
    findings.error('snapshotTable', 'ERROR snapshot table offset invalid');
    throw new CheckGivenUp('EINVAL');
  }
  const wanted = header.snapshotCount - discarded;
  const { snapshots, lengthBytes } = await readEntries(image, findings, repairing, wanted);
  discarded += wanted - snapshots.length;
  if (discarded > 0) {
    await image.moveSnapshots(header.snapshotsOffset, snapshots.length);
    findings.snapshots.corruptionsFixed += discarded;
  }
  if (header.version === 3) {
    for (const [index, { extra }] of snapshots.entries()) {
      if (extra.length >= requiredExtraLength) continue;
      const what = repairing ? 'Repairing' : 'ERROR';
      const message = `${what} snapshot table entry ${index} is incomplete`;
      findings.snapshotCorruption('snapshotIncomplete', message, repairing);
    }
  }
  return { snapshots, lengthBytes };
}

async function readEntries(
  image: CheckedImage,
  findings: Findings,
  repairing: boolean,
  count: number,
): Promise<CheckedSnapshots> {
  const { file, header } = image;
  const reader = new TableReader(file, header.snapshotsOffset);
  const snapshots: CheckedSnapshot[] = [];
  // What the entries would take if they were written, which may be less than they do.
  let tableBytes = 0;
  let end = 0;
  for (let index = 0; index < count; index++) {
    reader.align();
    tableBytes = Math.ceil(tableBytes / 8) * 8;
    const fixed = await reader.take(fixedBytes);
    const view = new DataView(fixed.buffer);
    const claimed = view.getUint32(36);
    if (claimed > maxSnapshotExtraBytes) {
      if (!repairing) {
        findings.error(
          'snapshotExtra',
          `ERROR failed to read the snapshot table: Too much extra metadata in snapshot table entry ${index}`,
        );
        findings.note(
          'snapshotExtra',
          'You can force-remove this extra metadata with cowherd check -r all',
        );
        throw new CheckGivenUp('EFBIG');
      }
      const sizes = `(${claimed} > ${maxSnapshotExtraBytes})`;
      const message = `Discarding too much extra metadata in snapshot table entry ${index} ${sizes}`;
      findings.snapshotCorruption('snapshotExtra', message, true);
    }
    const extra = await reader.take(Math.min(claimed, maxSnapshotExtraBytes));
    reader.skip(claimed - extra.length);
    const idBytes = view.getUint16(12);
    const names = await reader.take(idBytes + view.getUint16(14));
    tableBytes += fixedBytes + extra.length + names.length;
    if (isTableTooLong(tableBytes, reader.position)) {
      const rest = count - index;
      if (!repairing) {
        findings.error(
          'snapshotTable',
          'ERROR failed to read the snapshot table: Snapshot table is too big',
        );
        findings.note(
          'snapshotTable',
          `You can force-remove all ${rest} overhanging snapshots with cowherd check -r all`,
        );
        throw new CheckGivenUp('EFBIG');
      }
      const message = `Discarding ${rest} overhanging snapshots (snapshot table is too big)`;
      findings.note('snapshotsDiscarded', message);
      break;
    }
    end = reader.position;
    snapshots.push({
      id: decodeText(names.subarray(0, idBytes)),
      name: decodeText(names.subarray(idBytes)),
      l1Offset: view.getUint32(0) * two32 + view.getUint32(4),
      l1OffsetHex: view.getBigUint64(0).toString(16),
      l1Entries: view.getUint32(8),
      fixed,
      extra,
      names,
    });
  }
  return { snapshots, lengthBytes: end };
}
