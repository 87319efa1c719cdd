/** The facts about one open image that `info` reports. */
import { Qcow2Image } from '../format/qcow2/image.js';
import { backingFormatOf } from '../format/qcow2/header.js';
import type { StorageFile } from '../storage/storage.js';
import type { ImageInfo, Qcow2Info } from './api.js';
import type { OpenedParts } from './opened-image.js';
import { resolveReference } from './reference.js';

/** Gathers the facts of an image, its backing chain aside. */
export async function imageInfo(parts: OpenedParts): Promise<ImageInfo> {
  const { file, dataFile, format } = parts;
  const common = {
    filename: file.filename,
    virtualSize: format.size,
    fileLength: await file.size(),
    actualSize: await file.allocatedSize(),
    blockDevice: file.limits.blockDevice,
  };
  if (!(format instanceof Qcow2Image)) {
    return { ...common, format: 'raw', dirtyFlag: false, snapshots: [] };
  }
  const facts = await format.facts();
  const { header } = format.metadata.headerFile;
  const backingFormat = backingFormatOf(header);
  return {
    ...common,
    format: 'qcow2',
    clusterSize: facts.clusterSize,
    dirtyFlag: facts.dirty,
    ...(header.backingFile !== undefined && {
      backingFilename: header.backingFile,
      fullBackingFilename: resolveReference(file.filename, header.backingFile),
    }),
    ...(backingFormat !== undefined && { backingFormat }),
    snapshots: facts.snapshots.map((snapshot) => ({
      id: snapshot.id,
      name: snapshot.name,
      vmStateSize: snapshot.vmStateSize,
      dateSeconds: snapshot.dateSeconds,
      dateNanoseconds: snapshot.dateNanoseconds,
      vmClockSeconds: Math.floor(snapshot.vmClockNanoseconds / 1e9),
      vmClockNanoseconds: snapshot.vmClockNanoseconds % 1e9,
      ...(snapshot.icount !== undefined && { icount: snapshot.icount }),
    })),
    formatSpecific: withoutUndefined({
      type: 'qcow2' as const,
      compat: facts.compat,
      compressionType: facts.compressionType,
      refcountBits: facts.refcountBits,
      lazyRefcounts: facts.lazyRefcounts,
      corrupt: facts.corrupt,
      extendedL2: facts.extendedL2,
      dataFile: facts.dataFile,
      dataFileRaw: facts.dataFileRaw,
      bitmaps: facts.bitmaps.length > 0 ? facts.bitmaps : undefined,
    }) as Qcow2Info,
    ...(dataFile !== undefined && { dataFile: await fileFacts(dataFile) }),
  };
}

async function fileFacts(file: StorageFile): Promise<NonNullable<ImageInfo['dataFile']>> {
  return {
    filename: file.filename,
    fileLength: await file.size(),
    actualSize: await file.allocatedSize(),
  };
}

function withoutUndefined(facts: object): object {
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
}
