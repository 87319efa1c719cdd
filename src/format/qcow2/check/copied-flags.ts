/**
 * The COPIED flags of the active tables: each has to say whether its cluster has exactly one
 * reference. Looked at after the counts, and put right by them.
 */
import { maxOffset } from '../../../limits.js';
import { type Findings, entryHex } from './findings/findings.js';
import { type CheckedImage, l2TableOffset } from './tables/checked-image.js';
import { ClusterKind } from '../layout/l2-entry.js';
import { type TablePointer, type WalkedTable, walkTables } from '../tables/table-walk.js';

const copiedHigh = 0x80000000;
const sectorSize = 512;
/** Bits of an uncompressed entry that mean nothing. */
const reservedHigh = 0x3f000000;
const reservedLow = 0x1fe;

/** A reference count, a bigint where no number holds it. */
type Count = number | bigint | undefined;

/** What the flags are judged by, and whether they may be changed. */
export interface CopiedCheck {
  readonly findings: Findings;
  /**
   * The reference count of a cluster; undefined where it cannot be read, a promise where it has to be
   * read first: that of a cluster beyond the end of the file.
   */
  readonly count: (cluster: number) => Count | Promise<Count>;
  readonly repairing: boolean;
  /** Whether changing an L2 table at a host offset in bytes changes nothing else. */
  readonly isTableAlone: (hostOffset: number) => Promise<boolean>;
  /** Length of the file in bytes. */
  readonly fileLength: number;
  readonly signal: AbortSignal | undefined;
}

/** Judges every COPIED flag of the active tables, and puts the wrong ones right. */
export async function checkCopiedFlags(image: CheckedImage, check: CopiedCheck): Promise<void> {
  let next = 0;
  const checkL1 = async (end: number): Promise<void> => {
    for (; next < end; next++) {
      check.signal?.throwIfAborted();
      if (l2TableOffset(image.l1, next) !== 0) await checkL1Entry(image, check, next);
    }
  };
  for await (const table of tables(image, check.repairing)) {
    await checkL1(table.index + 1);
    await checkTable(image, check, table);
  }
  await checkL1(image.l1.byteLength / 8);
  if (check.repairing) await image.file.flush();
}

function tables(image: CheckedImage, repairing: boolean): AsyncIterable<WalkedTable> {
  const { file, geometry } = image;
  // What is to be changed is read when its turn comes: two L1 entries may point at one table.
  if (repairing) return oneByOne(image);
  return walkTables(file, pointers(image), geometry.clusterSize);
}

async function* oneByOne(image: CheckedImage): AsyncGenerator<WalkedTable> {
  for (const pointer of pointers(image)) {
    const view = await image.readTable(pointer.hostOffset, image.geometry.clusterSize);
    yield { ...pointer, view };
  }
}

function* pointers(image: CheckedImage): Generator<TablePointer> {
  for (let index = 0; index < image.l1.byteLength / 8; index++) {
    const hostOffset = l2TableOffset(image.l1, index);
    // Beyond what can be addressed there is no table.
    if (hostOffset !== 0 && hostOffset <= maxOffset - image.geometry.clusterSize) {
      yield { index, hostOffset };
    }
  }
}

async function checkL1Entry(image: CheckedImage, check: CopiedCheck, index: number): Promise<void> {
  const { file, geometry, header, l1 } = image;
  const cluster = Math.floor(l2TableOffset(l1, index) / geometry.clusterSize);
  const count = await check.count(cluster);
  const high = l1.getUint32(index * 8);
  if (count === undefined || (count === 1) === ((high & copiedHigh) !== 0)) return;
  const entry = entryHex(high, l1.getUint32(index * 8 + 4));
  const fact = `OFLAG_COPIED L2 cluster: l1_index=${index} l1_entry=${entry} refcount=${count}`;
  if (!check.repairing) {
    check.findings.corruption('copiedFlag', `ERROR ${fact}`);
    return;
  }
  check.findings.repair('copiedFlag', `Repairing ${fact}`);
  l1.setUint32(index * 8, (high ^ copiedHigh) >>> 0);
  const bytes = new Uint8Array(l1.buffer, index * 8, 8);
  await file.write(bytes, header.l1TableOffset + index * 8);
  check.findings.counts.corruptionsFixed++;
}

async function checkTable(
  image: CheckedImage,
  check: CopiedCheck,
  { view, hostOffset }: WalkedTable,
): Promise<void> {
  const { entries, geometry, externalData } = image;
  const changed = new Set<number>();
  let mayChange: boolean | undefined;
  for (let at = 0; at < geometry.clusterSize; at += geometry.l2EntrySize) {
    const kind = entries.kind(view, at);
    if (kind !== ClusterKind.normal && kind !== ClusterKind.zeroAllocated) continue;
    const cluster = Math.floor(entries.hostOffset(view, at) / geometry.clusterSize);
    const known = externalData ? 1 : check.count(cluster);
    const count = known instanceof Promise ? await known : known;
    if (count === undefined || (count === 1) === entries.isCopied(view, at)) continue;
    const high = view.getUint32(at);
    const entry = entryHex(high, view.getUint32(at + 4));
    const fact = `OFLAG_COPIED data cluster: l2_entry=${entry} refcount=${count}`;
    mayChange ??=
      check.repairing &&
      ((await check.isTableAlone(hostOffset)) || isPlausible(image, check, view, hostOffset));
    if (mayChange) {
      check.findings.repair('copiedFlag', `Repairing ${fact}`);
      view.setUint32(at, (high ^ copiedHigh) >>> 0);
      changed.add(Math.floor(at / sectorSize) * sectorSize);
      check.findings.counts.corruptionsFixed++;
    } else {
      check.findings.corruption(check.repairing ? 'tableKept' : 'copiedFlag', `ERROR ${fact}`);
    }
  }
  for (const sector of changed) {
    const bytes = new Uint8Array(view.buffer, view.byteOffset + sector, sectorSize);
    await image.file.write(bytes, hostOffset + sector);
  }
}

/**
 * Whether what lies at the place of an L2 table is one by all its entries: then that is what its
 * cluster is, although something else refers to it too.
 */
function isPlausible(
  image: CheckedImage,
  { fileLength }: CopiedCheck,
  view: DataView,
  tableOffset: number,
): boolean {
  const { entries, geometry } = image;
  if (tableOffset % geometry.clusterSize !== 0) return false;
  for (let at = 0; at < geometry.clusterSize; at += geometry.l2EntrySize) {
    const kind = entries.kind(view, at);
    if (kind === ClusterKind.compressed) {
      if (entries.compressedOffset(view, at) >= fileLength) return false;
    } else {
      const hostOffset = entries.hostOffset(view, at);
      const reserved = view.getUint32(at) & reservedHigh || view.getUint32(at + 4) & reservedLow;
      if (reserved !== 0 || hostOffset % geometry.clusterSize !== 0 || hostOffset >= fileLength) {
        return false;
      }
    }
  }
  return true;
}
