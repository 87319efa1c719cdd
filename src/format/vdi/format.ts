/** Disks of VirtualBox. */
import { fileOptions, sizeOption } from '../create-options.js';
import type { Format } from '../format.js';

/** The format. */
export const vdiFormat = {
  name: 'vdi',
  title: 'VDI',
  recognises: (begin) => begin.uint32LE(64) === 0xbeda107f,
  creation: {
    options: [
      sizeOption,
      {
        name: 'static',
        key: 'static',
        type: 'switch',
        help: 'VDI static (pre-allocated) image',
        initial: 'off',
      },
      ...fileOptions,
    ],
  },
  load: async () => (await import('./driver.js')).vdiDriver,
} as const satisfies Format;
