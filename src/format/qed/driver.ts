/** The driver of QED images. */
import type { FormatDriver } from '../driver.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import { TableCache } from '../mapped/table-cache.js';
import { checkQed } from './check.js';
import { qedCreation } from './create.js';
import { growingQed } from './growing.js';
import { readQedHeader } from './header.js';
import { type QedLayout, QedMapping } from './mapping.js';

/** The driver. */
export const qedDriver: FormatDriver = mappedDriver<QedLayout>({
  name: 'qed',
  hasBacking: true,
  readLayout: async ({ file }) => ({ layout: await readQedHeader(file), children: [] }),
  mapping: (layout, [file]) => new QedMapping(layout, file.filename, new TableCache(file)),
  growing: (layout, [file]) => growingQed(layout, file),
  creation: qedCreation,
  check: (_layout, [file], options) => checkQed(file, options),
});
