/** A format in one file: sixteen bytes that say the size, the disk from the second sector on. */
import { mappedDriver } from '../../src/format/mapped/mapped-image.js';
import type { GrowingMapping, MappedLayout } from '../../src/format/mapped/mapping.js';
import { invalidImage } from '../../src/format/failures.js';
import { sizeOption } from '../../src/format/create-options.js';
import type { Format } from '../../src/format/format.js';

const magic = 'TOYDISK!';
const dataAt = 512;

function mappingOf({ size }: MappedLayout): GrowingMapping {
  return {
    blockSize: 512,
    find: (offset, length) => ({ kind: 'data', file: 0, offset: dataAt + offset, length }),
    allocate: () => Promise.reject(new Error(`all ${size} bytes have their place`)),
    link: () => Promise.resolve(),
    takeChanges: () => undefined,
    close: () => Promise.resolve(),
  };
}

const driver = mappedDriver<MappedLayout>({
  name: 'toy',
  async readLayout({ file }) {
    const bytes = new Uint8Array(16);
    await file.read(bytes, 0);
    if (Buffer.from(bytes.subarray(0, 8)).toString('latin1') !== magic) {
      throw invalidImage(file.filename, 'Image not in toy format');
    }
    const size = Number(new DataView(bytes.buffer).getBigUint64(8));
    return { layout: { size, clusterSize: undefined }, children: [] };
  },
  mapping: mappingOf,
  growing: mappingOf,
  creation: {
    check: () => undefined,
    async create({ file, size }) {
      const header = Buffer.alloc(dataAt);
      header.write(magic, 'latin1');
      header.writeBigUInt64BE(BigInt(size), 8);
      await file.write(header, 0);
      await file.truncate(dataAt + size);
    },
  },
});

/** The format. */
export const toyFormat: Format = {
  name: 'toy',
  title: 'toy',
  recognises: (begin) => begin.has(magic),
  creation: { options: [sizeOption] },
  load: () => Promise.resolve(driver),
};
