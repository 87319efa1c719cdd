/** The facts about an image as JSON, keys in the order in which QEMU prints them. */
import type { EncryptionInfo, ImageInfo, Qcow2Info, SnapshotInfo } from '../image/api.js';
import type { JsonValue } from './qemu-json.js';

/** The value that `info --output=json` prints for one image. */
export function infoJson(info: ImageInfo): JsonValue {
  const { snapshots } = info;
  return {
    children: [{ name: 'file', info: fileJson(info) }],
    'backing-filename-format': info.backingFormat,
    snapshots: snapshots.length > 0 ? snapshots.map(snapshotJson) : undefined,
    'virtual-size': info.virtualSize,
    filename: info.filename,
    'cluster-size': info.clusterSize,
    format: info.format,
    'actual-size': info.actualSize,
    'format-specific':
      info.formatSpecific === undefined
        ? undefined
        : { type: info.formatSpecific.type, data: qcow2Json(info.formatSpecific) },
    'full-backing-filename': info.fullBackingFilename,
    encrypted: info.encrypted === true ? true : undefined,
    'backing-filename': info.backingFilename,
    'dirty-flag': info.dirtyFlag,
  };
}

function fileJson(info: ImageInfo): JsonValue {
  return {
    children: [],
    'virtual-size': wholeSectors(info.fileLength),
    filename: info.filename,
    format: info.blockDevice ? 'host_device' : 'file',
    'actual-size': info.actualSize,
    'format-specific': { type: 'file', data: { 'extent-size-hint': info.extentSizeHint } },
    'dirty-flag': false,
  };
}

/** The length of a file as QEMU has it: it thinks of files in sectors. */
export function wholeSectors(lengthBytes: number): number {
  return Math.ceil(lengthBytes / 512) * 512;
}

function snapshotJson(snapshot: SnapshotInfo): JsonValue {
  return {
    icount: snapshot.icount,
    'vm-clock-nsec': snapshot.vmClockNanoseconds,
    name: snapshot.name,
    'date-sec': snapshot.dateSeconds,
    'date-nsec': snapshot.dateNanoseconds,
    'vm-clock-sec': snapshot.vmClockSeconds,
    id: snapshot.id,
    'vm-state-size': snapshot.vmStateSize,
  };
}

/** The facts of the qcow2 format; the text for people is made of the same value. */
export function qcow2Json(facts: Qcow2Info): Record<string, JsonValue | undefined> {
  return {
    compat: facts.compat,
    'compression-type': facts.compressionType,
    'lazy-refcounts': facts.lazyRefcounts,
    bitmaps: facts.bitmaps?.map(({ flags, name, granularity }) => ({ flags, name, granularity })),
    'refcount-bits': facts.refcountBits,
    encrypt: facts.encrypt && encryptJson(facts.encrypt),
    'data-file': facts.dataFile,
    'data-file-raw': facts.dataFileRaw,
    corrupt: facts.corrupt,
    'extended-l2': facts.extendedL2,
  };
}

function encryptJson(facts: EncryptionInfo): JsonValue {
  return {
    'ivgen-alg': facts.ivgenAlg,
    'detached-header': facts.cipherAlg === undefined ? undefined : false,
    'hash-alg': facts.hashAlg,
    'cipher-alg': facts.cipherAlg,
    uuid: facts.uuid,
    'ivgen-hash-alg': facts.ivgenHashAlg,
    format: facts.format,
    'cipher-mode': facts.cipherMode,
    slots: facts.slots?.map(({ active, iterations, keyOffset, stripes }) => ({
      active,
      iters: iterations,
      'key-offset': keyOffset,
      stripes,
    })),
    'payload-offset': facts.payloadOffset,
    'master-key-iters': facts.masterKeyIterations,
  };
}
