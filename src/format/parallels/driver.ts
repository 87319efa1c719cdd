/** The driver of Parallels expandable images. What extends the format holds no data of the disk. */
import type { FormatDriver } from '../driver.js';
import { invalidImage } from '../failures.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import { checkParallels } from './check.js';
import { decodeParallelsHeader, parallelsHeaderBytes } from './header.js';
import { type ParallelsLayout, ParallelsMapping } from './mapping.js';

/** The driver. */
export const parallelsDriver: FormatDriver = mappedDriver<ParallelsLayout>({
  name: 'parallels',
  async readLayout({ file }) {
    const bytes = new Uint8Array(parallelsHeaderBytes);
    await file.read(bytes, 0);
    const header = decodeParallelsHeader(bytes, file.filename);
    const used = Math.min(header.catalogEntries, Math.ceil(header.size / header.clusterBytes));
    if (parallelsHeaderBytes + used * 4 > (await file.size())) {
      throw invalidImage(file.filename, 'The catalog lies beyond the end of the file');
    }
    // QEMU reports no cluster size for this format.
    return { layout: { ...header, clusterSize: undefined }, children: [] };
  },
  mapping: (layout, [file]) => new ParallelsMapping(layout, file),
  check: (_layout, [file], options) => checkParallels(file, options),
  // QEMU tells of no such mark for this format. Bitmaps that it may have are not read.
  facts: () => ({ dirty: undefined, bitmaps: [] }),
});
