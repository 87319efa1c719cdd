/** The driver of qcow images, which are read; those that are encrypted are only described. */
import type { FormatDriver } from '../driver.js';
import { unsupportedImage } from '../failures.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import { readQcowHeader } from './header.js';
import { type QcowLayout, QcowMapping } from './mapping.js';

/** The driver. */
export const qcowDriver: FormatDriver = mappedDriver<QcowLayout>({
  name: 'qcow',
  hasBacking: true,
  async readLayout({ file, options }) {
    const layout = await readQcowHeader(file);
    if (layout.isEncrypted && !options.forInfo) {
      throw unsupportedImage(file.filename, 'Encrypted images are not supported yet');
    }
    return { layout, children: [] };
  },
  mapping: (layout, [file]) => new QcowMapping(layout, file),
  facts: ({ isEncrypted }) => ({ encrypted: isEncrypted ? true : undefined }),
});
