/** The disk's bytes, as they are. */
import { fileOptions, preallocationOption, sizeOption } from '../create-options.js';
import type { Format } from '../format.js';

/** The format. */
export const rawFormat = {
  name: 'raw',
  title: 'raw',
  isBare: true,
  openOptions: [
    {
      name: 'offset',
      type: 'size',
      key: 'window.offset',
      help: 'where in its file the image begins',
    },
    { name: 'size', type: 'size', key: 'window.size', help: 'how much of its file the image is' },
  ],
  creation: {
    options: [
      sizeOption,
      preallocationOption(['off', 'falloc', 'full'], { isOfFile: true }),
      ...fileOptions,
    ],
  },
  load: async () => (await import('./driver.js')).rawDriver,
} as const satisfies Format;
