/** Disks of VMware. */
import { fileOptions, sizeOption } from '../create-options.js';
import type { Format } from '../format.js';
import type { Beginning } from '../probe.js';

/** The format. */
export const vmdkFormat = {
  name: 'vmdk',
  title: 'VMDK',
  openChildren: ['backing'],
  recognises: (begin) => begin.has('KDMV') || begin.has('COWD') || isDescriptor(begin),
  creation: {
    compresses: true,
    options: [
      sizeOption,
      {
        name: 'adapter_type',
        key: 'adapterType',
        type: 'string',
        help: 'Adapter that the disk is for: ide (the default), lsilogic, buslogic or legacyESX',
      },
      {
        name: 'compat6',
        key: 'compat6',
        type: 'switch',
        help: 'Virtual hardware of version 6',
        initial: 'off',
      },
      {
        name: 'hwversion',
        key: 'hardwareVersion',
        type: 'string',
        help: 'Version of the virtual hardware',
        initial: 'undefined',
      },
      {
        name: 'toolsversion',
        key: 'toolsVersion',
        type: 'string',
        help: "Version of the guest's tools",
      },
      {
        name: 'subformat',
        key: 'subformat',
        type: 'string',
        help: 'monolithicSparse (the default), monolithicFlat, twoGbMaxExtentSparse, twoGbMaxExtentFlat or streamOptimized',
      },
      {
        name: 'zeroed_grain',
        key: 'zeroedGrain',
        type: 'switch',
        help: 'Entries of tables may say that grains are zeroes',
      },
      ...fileOptions,
    ],
  },
  load: async () => (await import('./driver.js')).vmdkDriver,
} as const satisfies Format;

/** The text that describes the parts of an image: comments, blank lines, then its version. */
function isDescriptor(begin: Beginning): boolean {
  return /^(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n/.test(begin.text());
}
