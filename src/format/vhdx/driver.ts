/**
 * The driver of VHDX images: fixed, dynamic and differencing ones. An image that was not closed is read as
 * it is once its log has been replayed, and nothing is written to it.
 */
import type { FormatDriver } from '../driver.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import { checkVhdx } from './check.js';
import { vhdxCreation } from './create.js';
import { growingVhdx } from './growing.js';
import { type GrowingVhdxLayout, VhdxMapping } from './mapping.js';
import { readVhdxLayout } from './open.js';

/** The driver. */
export const vhdxDriver: FormatDriver = mappedDriver<GrowingVhdxLayout>({
  name: 'vhdx',
  hasBacking: true,
  async readLayout({ file, options: { forCheck } }) {
    const onDamage = forCheck ? (): void => undefined : undefined;
    return { layout: await readVhdxLayout(file, onDamage), children: [] };
  },
  mapping: (layout, [file]) => new VhdxMapping(layout, file),
  growing: (layout, [file]) => growingVhdx(layout, file),
  creation: vhdxCreation,
  check: (_layout, [file], options) => checkVhdx(file, options),
  facts: ({ replayed }) => ({ dirty: replayed !== undefined }),
});
