/** The driver of VDI images, dynamic and static ones. */
import { invalidImage } from '../failures.js';
import type { FormatDriver } from '../driver.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import { TableCache } from '../mapped/table-cache.js';
import { checkVdi } from './check.js';
import { vdiCreation } from './create.js';
import { growingVdi } from './growing.js';
import { decodeVdiHeader, vdiBlockBytes, vdiHeaderBytes } from './header.js';
import { type VdiLayout, VdiMapping } from './mapping.js';

/** The driver. */
export const vdiDriver: FormatDriver = mappedDriver<VdiLayout>({
  name: 'vdi',
  async readLayout({ file }) {
    const bytes = new Uint8Array(vdiHeaderBytes);
    await file.read(bytes, 0);
    const header = decodeVdiHeader(bytes, file.filename);
    const mapEnd = header.mapOffset + Math.ceil(header.size / vdiBlockBytes) * 4;
    if (mapEnd > (await file.size())) {
      throw invalidImage(file.filename, 'The block map lies beyond the end of the file');
    }
    return { layout: { ...header, clusterSize: vdiBlockBytes }, children: [] };
  },
  mapping: (layout, [file]) => new VdiMapping(layout, new TableCache(file)),
  growing: (layout, [file]) => growingVdi(layout, file),
  creation: vdiCreation,
  check: (_layout, [file], options) => checkVdi(file, options),
});
