/** Growing disks of the Bochs emulator. */
import type { FormatDriver } from '../driver.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import { type BochsLayout, decodeHeader, headerBytes } from './header.js';
import { BochsMapping } from './mapping.js';

/** The driver. */
export const bochsDriver: FormatDriver = mappedDriver<BochsLayout>({
  name: 'bochs',
  async readLayout({ file }) {
    const bytes = new Uint8Array(headerBytes);
    await file.read(bytes, 0);
    return { layout: decodeHeader(bytes, file.filename), children: [] };
  },
  mapping: (layout, [file]) => new BochsMapping(layout, file),
  // QEMU tells of no such mark for this format.
  facts: () => ({ dirty: undefined }),
});
