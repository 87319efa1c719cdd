/** QEMU's enhanced disk. */
import { backingOptions, fileOptions, sizeOption } from '../create-options.js';
import type { Format } from '../format.js';

/** The format. */
export const qedFormat = {
  name: 'qed',
  title: 'QED',
  openChildren: ['backing'],
  recognises: (begin) => begin.has('QED\0'),
  creation: {
    options: [
      sizeOption,
      ...backingOptions,
      {
        name: 'cluster_size',
        key: 'clusterSize',
        type: 'size',
        help: 'Cluster size (in bytes)',
        initial: '65536',
      },
      {
        name: 'table_size',
        key: 'tableSize',
        type: 'size',
        help: 'L1/L2 table size (in clusters)',
      },
      ...fileOptions,
    ],
  },
  load: async () => (await import('./driver.js')).qedDriver,
} as const satisfies Format;
