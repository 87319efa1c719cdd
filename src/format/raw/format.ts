/** The disk's bytes, as they are. */
import { fileOptions, preallocationOption, sizeOption } from '../create-options.js';
import type { Format } from '../format.js';

/** The format. */
export const rawFormat = {
  name: 'raw',
  title: 'raw',
  isBare: true,
  openOptions: ['offset', 'size'],
  creation: {
    options: [
      sizeOption,
      preallocationOption(['off', 'falloc', 'full'], { isOfFile: true }),
      ...fileOptions,
    ],
  },
  load: async () => (await import('./driver.js')).rawDriver,
} as const satisfies Format;
