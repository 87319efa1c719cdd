/** The driver of raw images. */
import { CowherdError } from '../../errors.js';
import type { FormatDriver } from '../driver.js';
import { createRaw } from './create.js';
import { RawImage, type RawHandle, openRaw } from './image.js';

/** The driver. */
export const rawDriver: FormatDriver = {
  name: 'raw',
  open: ({ file }) => openRaw(file),
  creation: {
    check: ({ preallocation }) => {
      if (preallocation !== 'metadata') return;
      const message = 'Unsupported preallocation mode: metadata';
      throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
    },
    create: ({ file, size, options, signal }) =>
      createRaw(file, size, options.preallocation ?? 'off', signal),
  },
  attach: ([file], handle) => new RawImage(file, (handle as RawHandle).size),
};
