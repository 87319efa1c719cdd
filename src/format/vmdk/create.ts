/** Making a new VMDK image: in one file, or a descriptor and the files of its extents; or a stream that holds nothing yet. */
import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { CowherdError } from '../../errors.js';
import { maxVmdkExtents } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import type { CreateOptions } from '../create-options.js';
import type { ImageCreation } from '../driver.js';
import { type NewExtent, encodeDescriptor } from './descriptor.js';
import { sectorBytes } from './layout.js';
import { encodeHostedHeader } from './sparse-header.js';
import { encodeStreamEnd } from './stream-markers.js';

/** Sectors of a grain, and entries of a grain table: VMware's own values. */
const grainSectors = 128;
const tableEntries = 512;
const entryBytes = 4;
const descriptorSectors = 20;
const tableSectors = (tableEntries * entryBytes) / sectorBytes;
/** Bytes of each extent but the last where the disk is split. */
const splitBytes = 2 ** 31;

/** What an image of a kind consists of. */
interface Subformat {
  /** What its extents are called after, in files of their own; absent where it is one file. */
  readonly extentName?: (number: number) => string;
  readonly isFlat: boolean;
  readonly isSplit: boolean;
  readonly isStream: boolean;
}

const one: Subformat = { isFlat: false, isSplit: false, isStream: false };
const numbered = (letter: string) => (number: number) =>
  `-${letter}${String(number).padStart(3, '0')}`;

/** QEMU's kinds. */
const subformats: Readonly<Record<string, Subformat>> = {
  monolithicSparse: one,
  monolithicFlat: { ...one, isFlat: true, extentName: () => '-flat' },
  twoGbMaxExtentSparse: { ...one, isSplit: true, extentName: numbered('s') },
  twoGbMaxExtentFlat: { ...one, isFlat: true, isSplit: true, extentName: numbered('f') },
  streamOptimized: { ...one, isStream: true },
};

/** The creation. */
export const vmdkCreation: ImageCreation = {
  isSequential: (options) => decide(options).isStream,
  otherFiles: (image, options, size) => {
    if (decide(options).extentName === undefined) return [];
    const folder = image.slice(0, image.length - path.basename(image).length);
    return extentsOf(image, options, size).map(({ filename }) => folder + filename);
  },
  check(options, size) {
    const { isFlat, isSplit, isStream } = decide(options);
    const refuse = (why: string): never => {
      const message = `The image size is too large for ${why}`;
      throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
    };
    if (size > maxVmdkExtents * splitBytes && isSplit) refuse('a split VMDK image');
    // Sectors are counted in 32 bits.
    const isTabled = !isFlat && !isSplit && !isStream;
    if (isTabled && planOf(size).grainsAt + size / sectorBytes > 0xffffffff) {
      refuse('a sparse VMDK image');
    }
  },
  async create({ file, size, isFilled, options, createChild }) {
    const { subformat, isFlat, isStream, extentName } = decide(options);
    const extents = extentsOf(file.filename, options, size);
    const descriptor = encodeDescriptor({
      cid: randomBytes(4).readUInt32LE(),
      createType: subformat,
      sectors: size / sectorBytes,
      extents,
      adapterType: options.adapterType ?? 'ide',
      hardwareVersion: hardwareVersionOf(options),
      toolsVersion: options.toolsVersion ?? '2147483647',
    });
    if (extentName !== undefined) {
      const names = vmdkCreation.otherFiles!(file.filename, options, size);
      for (const [index, { sectors }] of extents.entries()) {
        const extent = await createChild(names[index]);
        const bytes = sectors * sectorBytes;
        if (isFlat) await extent.truncate(bytes);
        else await createSparse(extent, bytes, options);
        await extent.flush();
      }
      await file.write(descriptor, 0);
    } else if (isStream && isFilled) await createStream(file, size, descriptor, options);
    else await createSparse(file, size, options, descriptor, isStream);
    await file.flush();
  },
};

function decide(options: CreateOptions): Subformat & { readonly subformat: string } {
  const { subformat = 'monolithicSparse', adapterType = 'ide' } = options;
  const { compat6 = false, hardwareVersion = 'undefined', toolsVersion = '0' } = options;
  const refuse = (message: string): never => {
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
  };
  if (!['ide', 'buslogic', 'lsilogic', 'legacyESX'].includes(adapterType)) {
    refuse(`invalid parameter value: ${adapterType}`);
  }
  if (!Object.hasOwn(subformats, subformat)) refuse(`invalid parameter value: ${subformat}`);
  if (compat6 && hardwareVersion !== 'undefined') {
    refuse('compat6 cannot be enabled with hwversion set');
  }
  if (!/^[\w.]+$/.test(hardwareVersion)) refuse(`Invalid hwversion '${hardwareVersion}'`);
  if (!/^[\w.]+$/.test(toolsVersion)) refuse(`Invalid toolsversion '${toolsVersion}'`);
  const kind = subformats[subformat];
  if (kind.isFlat && options.zeroedGrain === true) {
    refuse("Flat image can't enable zeroed grain");
  }
  return { ...kind, subformat };
}

/** QEMU shows the option as `undefined` where it is not said. */
function hardwareVersionOf({
  hardwareVersion = 'undefined',
  compat6 = false,
}: CreateOptions): string {
  if (hardwareVersion !== 'undefined') return hardwareVersion;
  return compat6 ? '6' : '4';
}

/** The extents of an image of a name. */
function extentsOf(image: string, options: CreateOptions, size: number): readonly NewExtent[] {
  const { isFlat, isSplit, extentName } = decide(options);
  const filename = path.basename(image);
  const type = isFlat ? 'FLAT' : 'SPARSE';
  if (extentName === undefined) return [{ type, sectors: size / sectorBytes, filename }];
  const dot = filename.lastIndexOf('.');
  const [stem, ending] = dot < 0 ? [filename, ''] : [filename.slice(0, dot), filename.slice(dot)];
  const extents: NewExtent[] = [];
  const most = isSplit ? splitBytes : size;
  for (let start = 0; start < size; start += most) {
    const sectors = Math.min(most, size - start) / sectorBytes;
    extents.push({ type, sectors, filename: stem + extentName(extents.length + 1) + ending });
  }
  return extents;
}

/** Where the parts of a sparse extent lie, in sectors: the directory with its tables is there twice. */
function planOf(size: number) {
  const tables = Math.ceil(size / sectorBytes / (grainSectors * tableEntries));
  const directorySectors = Math.ceil((tables * entryBytes) / sectorBytes);
  const spareAt = 1 + descriptorSectors;
  const directoryAt = spareAt + directorySectors + tables * tableSectors;
  const end = directoryAt + directorySectors + tables * tableSectors;
  const grainsAt = Math.ceil(end / grainSectors) * grainSectors;
  return { tables, directorySectors, spareAt, directoryAt, grainsAt };
}

/**
 * @param descriptor left out where it is in a file of its own
 * @param isStream whether grains will be compressed: it has its tables at once, for whichever program fills it
 */
async function createSparse(
  file: StorageFile,
  size: number,
  { zeroedGrain = false }: CreateOptions,
  descriptor: Uint8Array = new Uint8Array(),
  isStream = false,
): Promise<void> {
  const { tables, directorySectors, spareAt, directoryAt, grainsAt } = planOf(size);
  await file.truncate(grainsAt * sectorBytes);
  for (const at of [spareAt, directoryAt]) {
    const directory = new Uint8Array(directorySectors * sectorBytes);
    const view = new DataView(directory.buffer);
    for (let index = 0; index < tables; index++) {
      view.setUint32(index * entryBytes, at + directorySectors + index * tableSectors, true);
    }
    await file.write(directory, at * sectorBytes);
  }
  await file.write(descriptor, sectorBytes);
  const header = encodeHostedHeader({
    isStream,
    hasZeroedGrains: zeroedGrain,
    capacity: size / sectorBytes,
    grain: grainSectors,
    descriptorSize: descriptorSectors,
    tableEntries,
    spareDirectoryAt: spareAt,
    directoryAt,
    overhead: grainsAt,
  });
  // Last, so that what is cut off is no image at all.
  await file.flush();
  await file.write(header, 0);
}

async function createStream(
  file: StorageFile,
  size: number,
  descriptor: Uint8Array,
  { zeroedGrain = false }: CreateOptions,
): Promise<void> {
  const overhead = grainSectors;
  const tables = Math.ceil(size / sectorBytes / (grainSectors * tableEntries));
  const header = {
    isStream: true,
    hasZeroedGrains: zeroedGrain,
    capacity: size / sectorBytes,
    grain: grainSectors,
    descriptorSize: descriptorSectors,
    tableEntries,
    spareDirectoryAt: 0,
    directoryAt: undefined,
    overhead,
  };
  await file.write(
    encodeStreamEnd(header, new Uint32Array(tables), overhead),
    overhead * sectorBytes,
  );
  await file.write(descriptor, sectorBytes);
  await file.flush();
  await file.write(encodeHostedHeader(header), 0);
}
