/** Disks of Virtual PC, Azure and older Hyper-V (VHD). Fixed ones do not show at their begin. */
import { fileOptions, sizeOption } from '../create-options.js';
import type { Format } from '../format.js';

/** The format. */
export const vpcFormat = {
  name: 'vpc',
  title: 'VPC',
  openChildren: ['backing'],
  recognises: (begin) => begin.has('conectix'),
  creation: {
    options: [
      sizeOption,
      {
        name: 'subformat',
        key: 'subformat',
        type: 'string',
        help: 'dynamic (the default) or fixed',
      },
      {
        name: 'force_size',
        key: 'forceSize',
        type: 'switch',
        help: 'Keep the size instead of rounding it to a geometry; fixed: whole MiB',
      },
      ...fileOptions,
    ],
  },
  load: async () => (await import('./driver.js')).vpcDriver,
} as const satisfies Format;
