/** An image whose disk is that of another one above it, with filters between the two: what is told of the one is so of the other. */
import { FilterFile } from '../../storage/filters/filter-file.js';
import type { EventBreakpoints, EventHearer, StorageFile } from '../../storage/storage.js';
import type { Image } from '../api/image.js';
import type { Extent, ImageInfo } from '../api/reports.js';

export type { EventBreakpoints } from '../../storage/storage.js';

/** An image that is a file of another one. */
export interface NestedImage extends Image {
  /** Who hears what is done above its file. */
  readonly events: EventHearer | undefined;
}

/** A file that is an image. */
export interface ShownFile extends StorageFile {
  readonly image: NestedImage;
}

/** Tells whoever hears what is done above the file of an image. */
export async function hearEvent(image: Image, event: string): Promise<void> {
  await (image as NestedImage).events?.hear(event);
}

/** Where requests of an image can be stopped, if they can. */
export function breakpointsOf(image: Image): EventBreakpoints | undefined {
  return (image as NestedImage).events?.breakpoints;
}

/** The image whose disk a file shows as it is, filters or not, if it shows one. */
export function imageShown(file: StorageFile): NestedImage | undefined {
  if ('image' in file) return (file as ShownFile).image;
  return file instanceof FilterFile && file.shown !== undefined
    ? imageShown(file.shown)
    : undefined;
}

/** How the image stores a range of its disk, as filters let it be told. */
export async function* mapShown(
  image: NestedImage,
  file: StorageFile,
  range: {
    readonly offset: number;
    readonly length: number;
    readonly signal: AbortSignal | undefined;
  },
): AsyncGenerator<Extent> {
  const { signal, ...place } = range;
  for await (const extent of image.map({ ...place, ...(signal !== undefined && { signal }) })) {
    await file.status(extent.start, extent.length);
    yield extent;
  }
}

/** What is told of the image above, in the units of the one that it shows. */
export async function withUnitsOf(
  image: NestedImage | undefined,
  own: ImageInfo,
): Promise<ImageInfo> {
  if (image === undefined) return own;
  const { clusterSize, subclusterSize } = await image.info();
  return {
    ...own,
    ...(clusterSize !== undefined && { clusterSize }),
    ...(subclusterSize !== undefined && { subclusterSize }),
  };
}
