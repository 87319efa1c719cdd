/** The facts about one open image that `info` reports. */
import type { EncryptionFacts } from '../format/qcow2/contents/encryption.js';
import { Qcow2Image } from '../format/qcow2/image.js';
import { backingFormatOf } from '../format/qcow2/layout/header.js';
import type { StorageFile } from '../storage/storage.js';
import type { EncryptionInfo, ImageInfo, Qcow2Info } from './api.js';
import { describeReference } from './reference.js';

/** What the facts of an image are gathered from. */
export interface InfoSource {
  readonly file: StorageFile;
  readonly dataFile: StorageFile | undefined;
  readonly format: Qcow2Image | { readonly size: number };
}

/** Gathers the facts of an image, its backing chain aside. */
export async function imageInfo(parts: InfoSource): Promise<ImageInfo> {
  const { file, dataFile, format } = parts;
  const common = {
    filename: file.filename,
    virtualSize: format.size,
    fileLength: await file.size(),
    actualSize: await file.allocatedSize(),
    blockDevice: file.limits.blockDevice,
    ...withoutUndefined({ extentSizeHint: file.extentSizeHint?.() }),
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
    ...(facts.encryption !== undefined && { encrypted: true }),
    dirtyFlag: facts.dirty,
    ...(header.backingFile !== undefined && {
      backingFilename: header.backingFile,
      fullBackingFilename: describeReference(file.filename, header.backingFile),
    }),
    ...(backingFormat !== undefined && { backingFormat }),
    snapshots: facts.snapshots.map((snapshot) => ({
      id: snapshot.id,
      name: snapshot.name,
      vmStateSize: snapshot.vmStateSize,
      dateSeconds: snapshot.dateSeconds,
      dateNanoseconds: snapshot.dateNanoseconds,
      vmClockSeconds: snapshot.vmClockSeconds,
      vmClockNanoseconds: snapshot.vmClockNanoseconds,
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
      bitmapsFailure: facts.bitmapsFailure?.message,
      encrypt: facts.encryption && encryptionInfo(facts.encryption),
    }) as Qcow2Info,
    ...(dataFile !== undefined && { dataFile: await fileFacts(dataFile) }),
  };
}

function encryptionInfo(facts: EncryptionFacts): EncryptionInfo {
  if (facts.format === 'aes' || facts.header === undefined) return { format: facts.format };
  const slots = facts.header.slots.map(({ active, keyOffset, iterations, stripes }) =>
    active ? { active, keyOffset, iterations, stripes } : { active, keyOffset },
  );
  return { ...withoutUndefined(facts.header), format: 'luks', slots };
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
