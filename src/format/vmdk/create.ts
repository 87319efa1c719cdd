/** Making a new VMDK image in one file: sparse, with tables for all of it; or a stream that holds nothing yet. */
import { randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import { CowherdError } from '../../errors.js';
import type { StorageFile } from '../../storage/storage.js';
import type { CreateOptions } from '../create-options.js';
import type { ImageCreation } from '../driver.js';
import { encodeDescriptor } from './descriptor.js';
import { sectorBytes } from './layout.js';
import { encodeHostedHeader } from './sparse-header.js';
import { encodeStreamEnd } from './stream-markers.js';

/** Sectors of a grain, and entries of a grain table: VMware's own values. */
const grainSectors = 128;
const tableEntries = 512;
const entryBytes = 4;
const descriptorSectors = 20;
const tableSectors = (tableEntries * entryBytes) / sectorBytes;
const subformats = ['monolithicSparse', 'streamOptimized'] as const;

/** The creation. */
export const vmdkCreation: ImageCreation = {
  isSequential: (options) => decide(options).isStream,
  check(options, size) {
    const { isStream } = decide(options);
    // Sectors are counted in 32 bits.
    if (!isStream && planOf(size).grainsAt + size / sectorBytes > 0xffffffff) {
      const message = 'The image size is too large for a sparse VMDK image';
      throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
    }
  },
  async create({ file, size, options }) {
    const { subformat, isStream } = decide(options);
    const descriptor = encodeDescriptor({
      cid: randomBytes(4).readUInt32LE(),
      createType: subformat,
      sectors: size / sectorBytes,
      filename: basename(file.filename),
      adapterType: options.adapterType ?? 'ide',
      hardwareVersion: hardwareVersionOf(options),
    });
    if (isStream) await createStream(file, size, descriptor);
    else await createSparse(file, size, descriptor);
    await file.flush();
  },
};

function decide(options: CreateOptions): {
  readonly subformat: string;
  readonly isStream: boolean;
} {
  const { subformat = 'monolithicSparse', adapterType = 'ide' } = options;
  const { compat6 = false, hardwareVersion = 'undefined' } = options;
  const refuse = (message: string): never => {
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
  };
  if (!subformats.some((each) => each === subformat)) {
    refuse(`Invalid subformat '${subformat}': one of ${subformats.join(', ')} can be made`);
  }
  if (compat6 && hardwareVersion !== 'undefined') {
    refuse('compat6 cannot be enabled with hwversion set');
  }
  if (!/^[\w.]+$/.test(hardwareVersion)) refuse(`Invalid hwversion '${hardwareVersion}'`);
  if (!['ide', 'buslogic', 'lsilogic', 'legacyESX'].includes(adapterType)) {
    refuse(`Unknown adapter type: ${adapterType}`);
  }
  return { subformat, isStream: subformat === 'streamOptimized' };
}

/** QEMU shows the option as `undefined` where it is not said. */
function hardwareVersionOf({
  hardwareVersion = 'undefined',
  compat6 = false,
}: CreateOptions): string {
  if (hardwareVersion !== 'undefined') return hardwareVersion;
  return compat6 ? '6' : '4';
}

/** Where the parts of a sparse image lie, in sectors: the directory with its tables is there twice. */
function planOf(size: number) {
  const tables = Math.ceil(size / sectorBytes / (grainSectors * tableEntries));
  const directorySectors = Math.ceil((tables * entryBytes) / sectorBytes);
  const spareAt = 1 + descriptorSectors;
  const directoryAt = spareAt + directorySectors + tables * tableSectors;
  const end = directoryAt + directorySectors + tables * tableSectors;
  const grainsAt = Math.ceil(end / grainSectors) * grainSectors;
  return { tables, directorySectors, spareAt, directoryAt, grainsAt };
}

async function createSparse(
  file: StorageFile,
  size: number,
  descriptor: Uint8Array,
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
    isStream: false,
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
): Promise<void> {
  const overhead = grainSectors;
  const tables = Math.ceil(size / sectorBytes / (grainSectors * tableEntries));
  const header = {
    isStream: true,
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
