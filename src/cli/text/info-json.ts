/** The facts about an image as JSON, keys in the order in which QEMU prints them. */
import type { ChildFileInfo, ImageInfo, SnapshotInfo } from '../../image/api/reports.js';
import { specificJson } from './format-specific.js';
import { occupiedBytes, toldFiles } from './info-files.js';
import type { JsonValue } from './qemu-json.js';

/** The value that `info --output=json` prints for one image. */
export function infoJson(info: ImageInfo): JsonValue {
  const { snapshots } = info;
  return {
    children: toldFiles(info).map((file) => ({
      name: file.role,
      info: fileJson(file, info.extentSizeHint),
    })),
    'backing-filename-format': info.backingFormat,
    snapshots: snapshots.length > 0 ? snapshots.map(snapshotJson) : undefined,
    'virtual-size': info.virtualSize,
    filename: info.fullName ?? info.filename,
    'cluster-size': info.clusterSize,
    format: info.format,
    'actual-size': occupiedBytes(info),
    'format-specific':
      info.formatSpecific === undefined
        ? undefined
        : { type: info.formatSpecific.type, data: specificJson(info.formatSpecific) },
    'full-backing-filename': info.fullBackingFilename,
    encrypted: info.encrypted === true ? true : undefined,
    'backing-filename': info.backingFilename,
    'dirty-flag': info.dirtyFlag,
  };
}

function fileJson(file: ChildFileInfo, extentSizeHint: number | undefined): JsonValue {
  return {
    children: [],
    'virtual-size': wholeSectors(file.fileLength),
    filename: file.filename,
    format: file.protocol,
    'actual-size': file.actualSize,
    'format-specific': { type: 'file', data: { 'extent-size-hint': extentSizeHint } },
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
