/** The facts about one open image that `info` reports. */
import type { ChildFile, FormatImage } from '../../format/driver.js';
import type { SnapshotFacts } from '../../format/facts.js';
import type { Node } from '../../engine/queues/node.js';
import type { FormatSpecificInfo } from '../../format/specific.js';
import type { StorageFile } from '../../storage/storage.js';
import type { ChildFileInfo, ImageFormat, ImageInfo, SnapshotInfo } from '../api/reports.js';
import type { OpenImageOptions } from '../api/options.js';
import { describeReference, isFromFolder } from '../names/reference.js';

/** What the facts of an image are gathered from. */
export interface InfoSource {
  readonly file: StorageFile;
  readonly children: readonly ChildFile[];
  readonly formatName: ImageFormat;
  readonly format: FormatImage;
  readonly node: Node;
  readonly options: Pick<OpenImageOptions, 'window' | 'fullName'>;
}

/** Gathers the facts of an image, its backing chain aside. */
export async function imageInfo(source: InfoSource): Promise<ImageInfo> {
  const { file, children, format, formatName, options, node } = source;
  // A part of a file that the caller chose lies in the whole of it.
  const whole = (options.window !== undefined ? file.place?.(0).file : undefined) ?? file;
  const { clusterSize, encrypted, dirty, snapshots, bitmaps, specific, ...others } =
    await format.facts();
  const { backing } = format;
  const facts = withoutUndefined({
    filename: file.filename,
    fullName: options.fullName,
    format: formatName,
    virtualSize: node.size,
    fileLength: await whole.size(),
    blockDevice: whole.limits.blockDevice,
    protocol: file.protocol,
    extentSizeHint: file.extentSizeHint?.(),
    clusterSize,
    subclusterSize: others.subclusterSize,
    vmStateOffset: others.vmStateOffset,
    encrypted,
    dirtyFlag: dirty,
    backingFilename: backing?.name,
    fullBackingFilename: backing && placeOf(backing.name, file),
    backingFormat: backing?.format,
    snapshots: snapshots.map(snapshotInfo),
    bitmaps,
    formatSpecific: specific && (withoutUndefined(specific) as FormatSpecificInfo),
    warnings: others.warnings,
    children: await Promise.all(children.map(childInfo)),
  }) as Omit<ImageInfo, 'actualSize'>;
  return { ...facts, actualSize: await whole.allocatedSize() };
}

/** Where a backing file lies; undefined where no name can be relative to the image. */
function placeOf(name: string, file: StorageFile): string | undefined {
  const isLost = file.isScattered === true && isFromFolder(file.filename, name);
  return isLost ? undefined : describeReference(file.filename, name);
}

/** A snapshot as people are told of it. */
export function snapshotInfo(facts: SnapshotFacts): SnapshotInfo {
  return withoutUndefined(facts) as SnapshotInfo;
}

async function childInfo({ role, file }: ChildFile): Promise<ChildFileInfo> {
  return {
    role,
    filename: file.filename,
    fileLength: await file.size(),
    actualSize: await file.allocatedSize(),
    blockDevice: file.limits.blockDevice,
    protocol: file.protocol,
  };
}

function withoutUndefined(facts: object): object {
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
}
