/** The facts of a qcow2 image that `info` reports. */
import { CowherdError } from '../../../errors.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { FormatFacts } from '../../facts.js';
import { readBitmaps } from '../contents/bitmaps.js';
import { type EncryptionInfo, encryptionFacts } from '../contents/encryption.js';
import { readSnapshots, snapshotFacts } from '../contents/snapshots.js';
import { Geometry } from '../layout/geometry.js';
import {
  Autoclear,
  Compatible,
  Incompatible,
  type Qcow2Header,
  dataFileNameOf,
} from '../layout/header.js';

/** A persistent dirty bitmap as `info` reports it. */
export interface BitmapInfo {
  readonly flags: readonly ('in-use' | 'auto')[];
  readonly name: string;
  /** Bytes one bit covers. */
  readonly granularity: number;
}

/** Facts of the qcow2 format as `info` reports them. */
export interface Qcow2Info {
  readonly type: 'qcow2';
  readonly compat: '0.10' | '1.1';
  readonly compressionType: 'zlib' | 'zstd';
  /** Of version 3 only, as are the others that may be left out. */
  readonly lazyRefcounts?: boolean | undefined;
  readonly bitmaps?: readonly BitmapInfo[] | undefined;
  readonly refcountBits: number;
  readonly encrypt?: EncryptionInfo | undefined;
  readonly dataFile?: string | undefined;
  readonly dataFileRaw?: boolean | undefined;
  readonly corrupt?: boolean | undefined;
  readonly extendedL2?: boolean | undefined;
}

/** Gathers the facts of an image from its header and the tables it names. */
export async function qcow2Facts(file: StorageFile, header: Qcow2Header): Promise<FormatFacts> {
  const version3 = header.version === 3;
  const has = (bit: number): boolean => (header.incompatibleFeatures & bit) !== 0;
  const { snapshots } = await readSnapshots(file, header);
  const directory = await readBitmaps(file, header).catch((error: unknown) => {
    if (error instanceof CowherdError && error.code === 'ERR_COWHERD_INVALID_IMAGE') return error;
    throw error;
  });
  const bitmapsFailure = directory instanceof CowherdError ? directory.message : undefined;
  const bitmaps = directory instanceof CowherdError ? [] : (directory?.bitmaps ?? []);
  const externalData = has(Incompatible.externalDataFile);
  const encrypt = await encryptionFacts(file, header);
  const specific: Qcow2Info = {
    type: 'qcow2',
    compat: version3 ? '1.1' : '0.10',
    compressionType: header.compressionType,
    lazyRefcounts: version3
      ? (header.compatibleFeatures & Compatible.lazyRefcounts) !== 0
      : undefined,
    bitmaps:
      bitmaps.length === 0
        ? undefined
        : bitmaps.map(({ inUse, auto, name, granularityBits }) => ({
            flags: [...(inUse ? ['in-use' as const] : []), ...(auto ? ['auto' as const] : [])],
            name,
            granularity: 2 ** granularityBits,
          })),
    refcountBits: 2 ** header.refcountOrder,
    encrypt,
    dataFile: externalData ? dataFileNameOf(header) : undefined,
    dataFileRaw: externalData
      ? (header.autoclearFeatures & Autoclear.rawExternalData) !== 0
      : undefined,
    corrupt: version3 ? has(Incompatible.corrupt) : undefined,
    extendedL2: version3 ? has(Incompatible.extendedL2) : undefined,
  };
  const { l2EntriesPerTable, clusterSize, subclusterSize } = new Geometry({
    ...header,
    extendedL2: has(Incompatible.extendedL2),
  });
  const tableBytes = l2EntriesPerTable * clusterSize;
  return {
    clusterSize,
    subclusterSize: subclusterSize < clusterSize ? subclusterSize : undefined,
    vmStateOffset: Math.ceil(header.size / tableBytes) * tableBytes,
    encrypted: encrypt === undefined ? undefined : true,
    dirty: has(Incompatible.dirty),
    snapshots: snapshots.map(snapshotFacts),
    bitmaps: version3
      ? bitmaps.map(({ name, granularityBits }) => ({ name, granularity: 2 ** granularityBits }))
      : undefined,
    specific,
    ...(bitmapsFailure !== undefined && { warnings: [bitmapsFailure] }),
  };
}
