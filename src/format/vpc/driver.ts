/** The driver of VHD images: fixed, dynamic and differencing ones. */
import type { StorageFile } from '../../storage/storage.js';
import type { FormatDriver } from '../driver.js';
import { invalidImage } from '../failures.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import { tablePieces } from '../mapped/table-pieces.js';
import {
  type VhdFooter,
  type VhdHeader,
  decodeVhdFooter,
  decodeVhdHeader,
  isVhdFooter,
  vhdFooterBytes,
  vhdHeaderBytes,
  vhdSectorBytes,
} from './footer.js';
import { vpcCreation } from './create.js';
import { growingVhd } from './growing.js';
import { type VhdLayout, vhdEntryBytes, vhdMapping, vhdUnallocated } from './mapping.js';
import { findVhdParent } from './parent.js';

/** The driver. */
export const vpcDriver: FormatDriver = mappedDriver<VhdLayout>({
  name: 'vpc',
  hasBacking: true,
  readLayout: async ({ file }) => ({ layout: await readLayout(file), children: [] }),
  mapping: (layout, [file]) => vhdMapping(layout, file),
  growing: (layout, [file]) => growingVhd(layout, file),
  creation: vpcCreation,
});

async function readLayout(file: StorageFile): Promise<VhdLayout> {
  const { filename } = file;
  const { kind, size, headerOffset, uuid: identity } = await readFooter(file);
  if (kind === 'fixed') {
    return { size, clusterSize: undefined, blocks: undefined, isDifferencing: false, identity };
  }
  if (headerOffset + vhdHeaderBytes > (await file.size())) {
    throw invalidImage(filename, 'Error reading dynamic VHD header');
  }
  const bytes = new Uint8Array(vhdHeaderBytes);
  await file.read(bytes, headerOffset);
  const blocks = decodeVhdHeader(bytes, size, filename);
  await checkTable(file, blocks, Math.ceil(size / blocks.blockSize));
  const isDifferencing = kind === 'differencing';
  if (isDifferencing && blocks.bitmapBytes === 0) {
    throw invalidImage(filename, `Invalid block size ${blocks.blockSize}`);
  }
  const parent = isDifferencing ? await findVhdParent(file, bytes) : undefined;
  // Fixed disks are not recognised by their begin, so that the parent's format has to be said.
  const backing = parent === undefined ? undefined : { ...parent, format: 'vpc' };
  return { size, clusterSize: blocks.blockSize, blocks, isDifferencing, backing, identity };
}

/** The footer: its copy at the begin, or of a fixed disk the one at the end. */
async function readFooter(file: StorageFile): Promise<VhdFooter> {
  const { filename } = file;
  const bytes = new Uint8Array(vhdFooterBytes);
  await file.read(bytes, 0);
  const isCopied = isVhdFooter(bytes);
  if (!isCopied) {
    const length = await file.size();
    if (length < vhdFooterBytes) throw invalidImage(filename, 'File too small for a VHD header');
    await file.read(bytes, length - vhdFooterBytes);
    if (!isVhdFooter(bytes)) throw invalidImage(filename, 'invalid VPC image');
  }
  const footer = decodeVhdFooter(bytes, filename);
  if (isCopied === (footer.kind === 'fixed')) throw invalidImage(filename, 'invalid VPC image');
  return footer;
}

/** Refuses an image that is shorter than its table says. @param count of entries that are used */
async function checkTable(file: StorageFile, blocks: VhdHeader, count: number): Promise<void> {
  const length = await file.size();
  const truncated = (): Error =>
    invalidImage(
      file.filename,
      'block-vpc: free_data_block_offset points after the end of file. The image has been truncated.',
    );
  const { tableOffset, bitmapBytes, blockSize } = blocks;
  if (tableOffset + count * vhdEntryBytes > length) throw truncated();
  const lastStart = (length - bitmapBytes - blockSize) / vhdSectorBytes;
  for await (const { view } of tablePieces(file, tableOffset, count * vhdEntryBytes)) {
    for (let at = 0; at < view.byteLength; at += vhdEntryBytes) {
      const start = view.getUint32(at);
      if (start !== vhdUnallocated && start > lastStart) throw truncated();
    }
  }
}
