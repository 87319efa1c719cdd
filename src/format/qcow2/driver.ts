/** The driver of qcow2: how an image is opened from its file, and on further threads. */
import type { CreateOptions } from '../create-options.js';
import type { FormatDriver } from '../driver.js';
import { decideCreateOptions } from './change/create-options.js';
import { createQcow2, oneL1ClusterBytes, refuseTooLarge } from './change/create.js';
import { measureQcow2 } from './change/measure.js';
import { type Qcow2Handle, attachQcow2, openQcow2, readQcow2Header } from './image.js';
import { Incompatible, dataFileNameOf } from './layout/header.js';

/** A disk of which nothing is known shall have as much room at least; images are kept as files before. */
const leastOpenEnded = 2 ** 40;

/** The driver. */
export const qcow2Driver: FormatDriver = {
  name: 'qcow2',
  hasBacking: true,
  hasSnapshots: true,
  async open({ file, options, node, counters, openChild }) {
    const header = await readQcow2Header(file, { forCheck: options.forCheck });
    const isExternal = (header.incompatibleFeatures & Incompatible.externalDataFile) !== 0;
    // What it refers to is to be learnt before any of that is opened.
    const isDescribed = options.forInfo && options.readOnly;
    const dataFile =
      isExternal && !isDescribed
        ? await openChild({
            role: 'data-file',
            title: 'external data file',
            name: dataFileNameOf(header),
            base: 'working directory',
          })
        : undefined;
    return openQcow2(file, header, { ...options, dataFile, node, counters });
  },
  creation: {
    openEndedBytes,
    check: (options, size) => {
      refuseTooLarge(decideCreateOptions(options, size));
    },
    measure: (options, size, content) => {
      // Only a header takes room.
      const { encrypt } = options;
      const hasHeader = encrypt?.format === 'luks';
      const measured = { ...options, encryption: false, encrypt: hasHeader ? encrypt : {} };
      return measureQcow2(decideCreateOptions(measured, size), content);
    },
    async create({ file, size, options, signal, createChild }) {
      const dataFile =
        options.dataFile === undefined ? undefined : await createChild(options.dataFile);
      await createQcow2(file, dataFile, decideCreateOptions(options, size), signal);
    },
  },
  attach([file, dataFile], handle, node, counters) {
    return attachQcow2(file, dataFile, handle as Qcow2Handle, node, counters);
  },
};

/** As much as an L1 table of one cluster maps: it takes a cluster however small the disk becomes. */
function openEndedBytes(options: CreateOptions): number | undefined {
  const { dataFileName, preallocation, ...decided } = decideCreateOptions(options, 0);
  if (preallocation !== 'off' || dataFileName !== undefined) return undefined;
  const most = oneL1ClusterBytes(decided);
  return most < leastOpenEnded ? undefined : most;
}
