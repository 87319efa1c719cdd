/** Reading what describes a VMDK image: the descriptor, the headers of its extents. */
import { maxOffset, maxVmdkDescriptorBytes } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { ChildFile, FormatOpening } from '../driver.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import type { OpenedLayout } from '../mapped/mapping.js';
import {
  type ExtentLine,
  type Identity,
  descriptorText,
  noParent,
  parseCreateType,
  parseExtents,
  parseIdentity,
  shownCid,
} from './descriptor.js';
import {
  type DescriptorPlace,
  type ExtentContent,
  type SeSparseExtent,
  type SparseExtent,
  type VmdkExtent,
  type VmdkLayout,
  sectorBytes,
} from './layout.js';
import { checkVolatileHeader, decodeConstantHeader } from './se-sparse-header.js';
import {
  type ExtentFile,
  type HostedHeader,
  cowdExtent,
  cowdMagic,
  decodeFooter,
  decodeHostedHeader,
  footerBytes,
  hostedExtent,
  hostedMagic,
} from './sparse-header.js';

/** Reads the layout of an image, and opens the files that it names. */
export async function readLayout(opening: FormatOpening): Promise<OpenedLayout<VmdkLayout>> {
  const { file } = opening;
  const image = file.filename;
  const size = await file.size();
  if (size === 0) throw invalidImage(image, 'File is too small, not a valid image');
  const begin = await readView(file, 0, sectorBytes);
  switch (begin.getUint32(0)) {
    case hostedMagic: {
      const header = decodeHostedHeader(begin);
      const { capacity, descriptorOffset } = header;
      // An extent of nothing is a wrapping for the descriptor.
      if (capacity === 0 && descriptorOffset > 0) {
        return readDescribed(opening, descriptorPlace(header, size, image));
      }
      return readMonolithic(file, header, size);
    }
    case cowdMagic:
      throw unsupportedImage(image, 'A COWD extent is opened by the descriptor that names it');
    default: {
      const length = Math.min(size, maxVmdkDescriptorBytes);
      return readDescribed(opening, { offset: 0, length });
    }
  }
}

/** A sparse extent that is the whole image, with a descriptor within as a rule. */
async function readMonolithic(
  file: StorageFile,
  header: HostedHeader,
  size: number,
): Promise<OpenedLayout<VmdkLayout>> {
  const image = file.filename;
  const content = await readHosted(file, header, { image, filename: image, size });
  const place = header.descriptorOffset > 0 ? descriptorPlace(header, size, image) : undefined;
  const text = place === undefined ? '' : await readText(file, place);
  const identity: Identity =
    text === ''
      ? { cid: 0, parentCid: noParent, parentName: undefined }
      : parseIdentity(text, image);
  const extents = [{ ...content, start: 0, file: 0, type: '' }];
  const descriptor = text === '' ? undefined : place;
  const layout = layoutOf(extents, identity, { createType: 'monolithicSparse', descriptor });
  return { layout, children: [] };
}

/** Where a hosted extent has its descriptor. @param size of the file, in bytes */
function descriptorPlace(header: HostedHeader, size: number, image: string): DescriptorPlace {
  const offset = header.descriptorOffset * sectorBytes;
  if (offset > maxOffset - maxVmdkDescriptorBytes) {
    throw invalidImage(image, 'Could not read from file');
  }
  const described = header.capacity === 0 ? size : header.descriptorSize * sectorBytes;
  return { offset, length: Math.min(described, size, maxVmdkDescriptorBytes) };
}

async function readText(file: StorageFile, { offset, length }: DescriptorPlace): Promise<string> {
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return descriptorText(bytes);
}

/** An image whose extents a descriptor names. */
async function readDescribed(
  opening: FormatOpening,
  descriptor: DescriptorPlace,
): Promise<OpenedLayout<VmdkLayout>> {
  const image = opening.file.filename;
  const text = await readText(opening.file, descriptor);
  const createType = parseCreateType(text, image);
  const lines = parseExtents(text, image);
  if (lines.length === 0) {
    throw invalidImage(image, 'invalid VMDK image descriptor: it names no extents');
  }
  const identity = parseIdentity(text, image);
  const extents: VmdkExtent[] = [];
  const children: ChildFile[] = [];
  let start = 0;
  for (const line of lines) {
    const { length, type, name } = line;
    let content: ExtentContent = { kind: 'zero', length };
    if (type !== 'ZERO') {
      const role = `extents.${children.length}`;
      const file = await opening.openChild({ role, title: 'extent', name, base: 'image' });
      children.push({ role, file });
      content = await readContent(image, file, line);
    }
    const file = content.kind === 'zero' ? 0 : children.length;
    if (content.length > 0) extents.push({ ...content, start, file, type });
    start += content.length;
    if (start > maxOffset) throw invalidImage(image, 'Image is too big');
  }
  return { layout: layoutOf(extents, identity, { createType, descriptor }), children };
}

/** What an extent's file holds. A sparse extent's header, not the descriptor, says how large it is. */
async function readContent(
  image: string,
  file: StorageFile,
  { type, length, offset }: ExtentLine,
): Promise<ExtentContent> {
  if (type === 'FLAT' || type === 'VMFS') return { kind: 'flat', length, offset };
  const { filename } = file;
  const extentFile = { image, filename, size: await file.size() };
  if (type === 'SESPARSE') return readSeSparse(file, extentFile);
  if (extentFile.size === 0) throw invalidImage(image, 'File is too small, not a valid image');
  const begin = await readView(file, 0, sectorBytes);
  switch (begin.getUint32(0)) {
    case hostedMagic:
      return readHosted(file, decodeHostedHeader(begin), extentFile);
    case cowdMagic:
      return cowdExtent(begin, extentFile);
    default:
      throw invalidImage(image, 'Image not in VMDK format');
  }
}

async function readHosted(
  file: StorageFile,
  header: HostedHeader,
  extentFile: ExtentFile,
): Promise<SparseExtent> {
  if (!header.isInFooter) return hostedExtent(header, extentFile);
  const end = Math.ceil(extentFile.size / sectorBytes) * sectorBytes;
  if (end < footerBytes) throw invalidImage(extentFile.image, 'Failed to read footer');
  const footer = await readView(file, end - footerBytes, footerBytes);
  return hostedExtent(decodeFooter(footer, extentFile), extentFile);
}

async function readSeSparse(file: StorageFile, extentFile: ExtentFile): Promise<SeSparseExtent> {
  const begin = await readView(file, 0, sectorBytes);
  const { extent, volatileOffset } = decodeConstantHeader(begin, extentFile);
  checkVolatileHeader(await readView(file, volatileOffset, sectorBytes), extentFile);
  return extent;
}

async function readView(file: StorageFile, offset: number, length: number): Promise<DataView> {
  const bytes = new Uint8Array(length);
  await file.read(bytes, offset);
  return new DataView(bytes.buffer);
}

function layoutOf(
  extents: readonly VmdkExtent[],
  { cid, parentCid, parentName }: Identity,
  { createType, descriptor }: Pick<VmdkLayout, 'createType' | 'descriptor'>,
): VmdkLayout {
  const isCompressed = extents.some(
    (extent) => extent.kind === 'sparse' && extent.compression !== 'none',
  );
  return {
    size: extents.reduce((size, { length }) => size + length, 0),
    clusterSize: commonGrain(extents),
    backing:
      parentName === undefined
        ? undefined
        : { name: parentName, format: 'vmdk', identities: [shownCid(parentCid)] },
    identity: shownCid(cid),
    cid,
    parentCid,
    createType: isCompressed ? 'streamOptimized' : createType,
    descriptor,
    extents,
  };
}

/** Bytes of a grain, if the extents are alike; undefined if not, or if they have none. */
function commonGrain(extents: readonly VmdkExtent[]): number | undefined {
  const stored = extents.filter(({ kind }) => kind !== 'zero');
  if (stored.length === 0) return undefined;
  const [first, ...others] = stored.map((extent) => ({
    grain: extent.kind === 'sparse' || extent.kind === 'seSparse' ? extent.grainBytes : undefined,
    isCompressed: extent.kind === 'sparse' && extent.compression !== 'none',
  }));
  const areAlike = others.every(
    ({ grain, isCompressed }) => grain === first.grain && isCompressed === first.isCompressed,
  );
  return areAlike ? first.grain : undefined;
}
