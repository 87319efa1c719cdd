/** Compressed loop devices of old live systems. */
import type { FormatDriver } from '../driver.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import { type CloopLayout, decodeHeader, headerBytes } from './header.js';
import { CloopMapping } from './mapping.js';

/** The driver. */
export const cloopDriver: FormatDriver = mappedDriver<CloopLayout>({
  name: 'cloop',
  async readLayout({ file }) {
    const bytes = new Uint8Array(headerBytes);
    await file.read(bytes, 0);
    return { layout: decodeHeader(bytes, file.filename, await file.size()), children: [] };
  },
  mapping: (layout, [file]) => new CloopMapping(layout, file),
  // QEMU tells of no such mark for this format.
  facts: () => ({ dirty: undefined }),
});
