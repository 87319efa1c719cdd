/** The facts of a qcow2 image that `info` reports. */
import { CowherdError } from '../../../errors.js';
import type { StorageFile } from '../../../storage/storage.js';
import { readBitmaps } from '../contents/bitmaps.js';
import { type EncryptionFacts, encryptionFacts } from '../contents/encryption.js';
import {
  Autoclear,
  Compatible,
  Incompatible,
  type Qcow2Header,
  dataFileNameOf,
} from '../layout/header.js';
import { type Snapshot, readSnapshots } from '../contents/snapshots.js';

/** A persistent bitmap as reported. */
export interface ReportedBitmap {
  readonly name: string;
  /** Bytes of guest data that one bit covers. */
  readonly granularity: number;
  readonly flags: readonly ('in-use' | 'auto')[];
}

/** What the format says of an image; facts that version 2 lacks are undefined there. */
export interface Qcow2Facts {
  readonly compat: '0.10' | '1.1';
  readonly clusterSize: number;
  readonly compressionType: 'zlib' | 'zstd';
  readonly refcountBits: number;
  readonly lazyRefcounts: boolean | undefined;
  readonly corrupt: boolean | undefined;
  readonly extendedL2: boolean | undefined;
  readonly dirty: boolean;
  readonly dataFile: string | undefined;
  readonly dataFileRaw: boolean | undefined;
  readonly snapshots: readonly Snapshot[];
  readonly bitmaps: readonly ReportedBitmap[];
  /** Why the bitmaps are not told, where their directory is damaged. */
  readonly bitmapsFailure: CowherdError | undefined;
  readonly encryption: EncryptionFacts | undefined;
}

/** Gathers the facts of an image from its header and the tables it names. */
export async function qcow2Facts(file: StorageFile, header: Qcow2Header): Promise<Qcow2Facts> {
  const version3 = header.version === 3;
  const has = (bit: number): boolean => (header.incompatibleFeatures & bit) !== 0;
  const { snapshots } = await readSnapshots(file, header);
  const directory = await readBitmaps(file, header).catch((error: unknown) => {
    if (error instanceof CowherdError && error.code === 'ERR_COWHERD_INVALID_IMAGE') return error;
    throw error;
  });
  const bitmapsFailure = directory instanceof CowherdError ? directory : undefined;
  const bitmaps = directory instanceof CowherdError ? [] : (directory?.bitmaps ?? []);
  const externalData = has(Incompatible.externalDataFile);
  return {
    compat: version3 ? '1.1' : '0.10',
    clusterSize: 2 ** header.clusterBits,
    compressionType: header.compressionType,
    refcountBits: 2 ** header.refcountOrder,
    lazyRefcounts: version3
      ? (header.compatibleFeatures & Compatible.lazyRefcounts) !== 0
      : undefined,
    corrupt: version3 ? has(Incompatible.corrupt) : undefined,
    extendedL2: version3 ? has(Incompatible.extendedL2) : undefined,
    dirty: has(Incompatible.dirty),
    dataFile: externalData ? dataFileNameOf(header) : undefined,
    dataFileRaw: externalData
      ? (header.autoclearFeatures & Autoclear.rawExternalData) !== 0
      : undefined,
    snapshots,
    bitmaps: bitmaps.map((bitmap) => ({
      name: bitmap.name,
      granularity: 2 ** bitmap.granularityBits,
      flags: [
        ...(bitmap.inUse ? ['in-use' as const] : []),
        ...(bitmap.auto ? ['auto' as const] : []),
      ],
    })),
    bitmapsFailure,
    encryption: await encryptionFacts(file, header),
  };
}
