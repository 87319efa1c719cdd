/** The driver of encrypted disks. */
import { CowherdError, cannotOpen } from '../../errors.js';
import type { CreateOptions } from '../create-options.js';
import type { FormatDriver } from '../driver.js';
import { unlockLuks } from '../encryption/disk-key.js';
import { type LuksArea, readLuksHeader } from '../encryption/key-slots.js';
import { decideLuksHeader, luksAreaBytes, makeLuksHeader } from '../encryption/new-header.js';
import { passwordOf, refusingImage, refusingToOpen } from '../encryption/secret.js';
import { createRaw } from '../raw/create.js';
import { type LuksHandle, LuksImage, payloadOffsetOf } from './image.js';

const sectorBytes = 512;
/** What stands in front of the names of options here. */
const prefix = '';

/** The driver. */
export const luksDriver: FormatDriver = {
  name: 'luks',
  async open({ file, node, options }) {
    const { filename } = file;
    const refuse = refusingToOpen(filename);
    const area: LuksArea = file;
    const header = await readLuksHeader(area, refusingImage(filename));
    const isDescribed = options.forInfo && options.readOnly;
    const diskKey = isDescribed
      ? undefined
      : await unlockLuks(header, area, options.encrypt, prefix, 'guest', refuse);
    const bytes = (await file.size()) - payloadOffsetOf(header);
    if (bytes < 0) {
      const why = 'Could not refresh total sector count: Input/output error';
      throw cannotOpen('ERR_COWHERD_INVALID_IMAGE', filename, why);
    }
    const size = Math.ceil(bytes / sectorBytes) * sectorBytes;
    return new LuksImage(file, { format: 'luks', header, size, diskKey }, node);
  },
  creation: {
    check: (options) => {
      decide(options);
    },
    measure: (options, size) => {
      const required = decide(options) + Math.ceil(size / sectorBytes) * sectorBytes;
      return Promise.resolve({ required, fullyAllocated: required });
    },
    async create({ file, size, options, signal }) {
      const areaBytes = decide(options);
      const { parts, masterKey } = await makeLuksHeader(options.encrypt ?? {}, prefix);
      masterKey.fill(0);
      const { preallocation = 'off' } = options;
      // What is cut off is no image: the header comes last.
      await createRaw(file, areaBytes + size, preallocation, signal);
      for (const { offset, bytes } of parts) {
        await file.flush();
        await file.write(bytes, offset);
      }
      await file.flush();
    },
  },
  attach: ([file], handle, node) => new LuksImage(file, handle as LuksHandle, node),
};

/** Looks at the options of a new image, the password too. @returns bytes of the header and its keys */
function decide({ encrypt = {} }: CreateOptions): number {
  const refuse = (why: string): CowherdError =>
    new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', why, { why });
  if (encrypt.detachedHeader !== undefined) {
    throw refuse("Parameter 'detached-header' is unexpected");
  }
  const header = decideLuksHeader(encrypt);
  passwordOf(encrypt, prefix, refuse);
  return luksAreaBytes(header);
}
