/** Disks of Hyper-V. */
import { fileOptions, sizeOption } from '../create-options.js';
import type { Format } from '../format.js';

/** The format. */
export const vhdxFormat = {
  name: 'vhdx',
  title: 'VHDX',
  openChildren: ['backing'],
  recognises: (begin) => begin.has('vhdxfile'),
  creation: {
    options: [
      sizeOption,
      {
        name: 'log_size',
        key: 'logSize',
        type: 'size',
        help: 'Log size, rounded up to whole MiB',
        initial: '1048576',
      },
      {
        name: 'block_size',
        key: 'blockSize',
        type: 'size',
        help: 'Block size, a power of two from 1 MiB to 256 MiB; 0 goes by the size of the disk',
        initial: '0',
      },
      {
        name: 'subformat',
        key: 'subformat',
        type: 'string',
        help: 'dynamic (the default) or fixed',
      },
      {
        name: 'block_state_zero',
        key: 'blockStateZero',
        type: 'switch',
        help: 'Dynamic: blocks begin as ones of zeroes (the default), not as ones that are not there',
      },
      ...fileOptions,
    ],
  },
  load: async () => (await import('./driver.js')).vhdxDriver,
} as const satisfies Format;
