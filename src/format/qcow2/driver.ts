/** The driver of qcow2: how an image is opened from its file, and on further threads. */
import type { FormatDriver } from '../driver.js';
import { decideCreateOptions } from './change/create-options.js';
import { createQcow2, refuseTooLarge } from './change/create.js';
import { type Qcow2Handle, attachQcow2, openQcow2, readQcow2Header } from './image.js';
import { Incompatible, dataFileNameOf } from './layout/header.js';

/** The driver. */
export const qcow2Driver: FormatDriver = {
  name: 'qcow2',
  hasBacking: true,
  hasSnapshots: true,
  async open({ file, options, counters, openChild }) {
    const header = await readQcow2Header(file, { forCheck: options.forCheck });
    const isExternal = (header.incompatibleFeatures & Incompatible.externalDataFile) !== 0;
    const dataFile = isExternal
      ? await openChild({
          role: 'data-file',
          title: 'external data file',
          name: dataFileNameOf(header),
          base: 'working directory',
        })
      : undefined;
    return openQcow2(file, header, { ...options, dataFile, counters });
  },
  creation: {
    check: (options, size) => {
      refuseTooLarge(decideCreateOptions(options, size));
    },
    async create({ file, size, options, signal, createChild }) {
      const dataFile =
        options.dataFile === undefined ? undefined : await createChild(options.dataFile);
      await createQcow2(file, dataFile, decideCreateOptions(options, size), signal);
    },
  },
  attach([file, dataFile], handle, counters) {
    const image = attachQcow2(file, dataFile, handle as Qcow2Handle, counters);
    image.metadata.poison.check();
    return image;
  },
};
