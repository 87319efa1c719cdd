/** Disk images of macOS (UDIF). */
import { maxUdifTableBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { FormatDriver, FormatOpening } from '../driver.js';
import { invalidImage } from '../failures.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import type { OpenedLayout } from '../mapped/mapping.js';
import { dataOf, resourcesOf } from './block-tables.js';
import { type DmgLayout, layoutOf } from './chunks.js';
import { DmgMapping } from './mapping.js';
import {
  type FilePart,
  decodeTrailer,
  findTrailer,
  searchedPart,
  trailerBytes,
} from './trailer.js';

/** The driver. */
export const dmgDriver: FormatDriver = mappedDriver<DmgLayout>({
  name: 'dmg',
  readLayout,
  mapping: (layout, [file]) => new DmgMapping(layout, file),
  // QEMU tells of no such mark for this format.
  facts: () => ({ dirty: undefined }),
});

async function readLayout({ file }: FormatOpening): Promise<OpenedLayout<DmgLayout>> {
  const { filename } = file;
  const searched = searchedPart(await file.size(), filename);
  const offset = searched.offset + findTrailer(await read(file, searched), filename);
  const bytes = await read(file, { offset, length: trailerBytes });
  const trailer = decodeTrailer(new DataView(bytes.buffer), offset, filename);
  const { size, dataOffset, resources, propertyList } = trailer;
  const hasResources = resources.length > 0;
  const described = hasResources ? resources : propertyList;
  if (described.length > maxUdifTableBytes) {
    const what = hasResources ? 'resource fork' : 'property list';
    throw invalidImage(filename, `the ${what} is larger than ${maxUdifTableBytes} bytes`);
  }
  const description = await read(file, described);
  const tables = hasResources ? resourcesOf(description, filename) : dataOf(description, filename);
  return { layout: layoutOf(tables, size, dataOffset, filename), children: [] };
}

async function read(file: StorageFile, { offset, length }: FilePart): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return bytes;
}
