/** The driver of raw images. */
import { CowherdError } from '../../errors.js';
import type { FormatDriver } from '../driver.js';
import { createRaw } from './create.js';
import { RawImage, type RawHandle, mostBytes, openRaw } from './image.js';
import { streamRaw } from './stream.js';

const sectorBytes = 512;

/** The driver. */
export const rawDriver: FormatDriver = {
  name: 'raw',
  open: ({ file, node, options }) => openRaw(file, node, options.isOpenEnded === true),
  stream: streamRaw,
  creation: {
    openEndedBytes: ({ preallocation = 'off' }) =>
      preallocation === 'off' ? mostBytes : undefined,
    check: ({ preallocation }) => {
      if (preallocation !== 'metadata') return;
      const message = 'Unsupported preallocation mode: metadata';
      throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
    },
    measure: (_options, size) => {
      const required = Math.ceil(size / sectorBytes) * sectorBytes;
      return Promise.resolve({ required, fullyAllocated: required });
    },
    create: ({ file, size, isOpenEnded, options, signal }) =>
      createRaw(file, isOpenEnded ? 0 : size, options.preallocation ?? 'off', signal),
  },
  attach: ([file], handle, node) => new RawImage(file, (handle as RawHandle).size, node),
};
