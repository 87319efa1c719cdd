/** Making a new VHD image: fixed, the disk and a footer; or dynamic, with a table of blocks. */
import { randomBytes } from 'node:crypto';
import { CowherdError } from '../../errors.js';
import { maxVhdSectors } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { CreateOptions } from '../create-options.js';
import type { ImageCreation } from '../driver.js';
import {
  encodeVhdFooter,
  encodeVhdHeader,
  vhdFooterBytes,
  vhdHeaderBytes,
  vhdSectorBytes,
} from './footer.js';
import { geometryFor, maxGeometrySectors, sectorsOf } from './geometry.js';
import { vhdEntryBytes } from './mapping.js';

const blockBytes = 2 * 1024 * 1024;
const mebi = 1024 * 1024;
const tableOffset = vhdFooterBytes + vhdHeaderBytes;

/** The creation. */
export const vpcCreation: ImageCreation = {
  check({ subformat = 'dynamic' }, size) {
    const refuse = (message: string): never => {
      throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
    };
    if (subformat !== 'dynamic' && subformat !== 'fixed') {
      refuse(`Invalid subformat '${subformat}'`);
    }
    if (size / vhdSectorBytes > maxVhdSectors) refuse('Image size too large for the VHD format');
  },
  async create({ file, size, options }) {
    const isFixed = options.subformat === 'fixed';
    const footer = newFooter(size, options, isFixed);
    if (isFixed) {
      await file.truncate(footer.size);
      await file.write(footer.bytes, footer.size);
    } else await createDynamic(file, footer.size, footer.bytes);
    await file.flush();
  },
};

/** The footer of a disk of about so many bytes, and how many it has. */
function newFooter(
  wanted: number,
  { forceSize = false }: CreateOptions,
  isFixed: boolean,
): { readonly bytes: Uint8Array; readonly size: number } {
  // Clouds take fixed disks of whole MiB only.
  const least = forceSize && isFixed ? Math.ceil(wanted / mebi) * mebi : wanted;
  const geometry = geometryFor(least / vhdSectorBytes);
  const meansSize = forceSize || least / vhdSectorBytes > maxGeometrySectors;
  const size = meansSize ? least : sectorsOf(geometry) * vhdSectorBytes;
  const bytes = encodeVhdFooter({
    size,
    geometry,
    meansGeometry: !meansSize,
    isFixed,
    uuid: randomBytes(16),
    time: Date.now(),
  });
  return { bytes, size };
}

/**
 *     [ footer ][ header ][ table ][ footer ]
 *
 * Blocks come where the last footer is, which moves behind them.
 */
async function createDynamic(file: StorageFile, size: number, footer: Uint8Array): Promise<void> {
  const tableEntries = Math.ceil(size / blockBytes);
  const tableBytes = Math.ceil((tableEntries * vhdEntryBytes) / vhdSectorBytes) * vhdSectorBytes;
  await file.truncate(tableOffset + tableBytes + vhdFooterBytes);
  await file.write(new Uint8Array(tableBytes).fill(0xff), tableOffset);
  await file.write(footer, tableOffset + tableBytes);
  await file.write(encodeVhdHeader({ tableOffset, tableEntries, blockSize: blockBytes }), 512);
  // Last, so that what is cut off is no image at all.
  await file.flush();
  await file.write(footer, 0);
}
