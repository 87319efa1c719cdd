/** The options of opening that every image and every file has. */
import type { OpenOption } from '../../storage/open-option.js';

/** See the file's comment. */
export const commonOpenOptions: readonly OpenOption[] = [
  // Names of nodes are for machines that run.
  { name: 'node-name', type: 'text', help: 'taken, and changes nothing here' },
  { name: 'auto-read-only', type: 'switch', help: 'taken, and changes nothing here' },
  { name: 'read-only', type: 'switch', key: 'readOnly', help: 'only reads' },
  {
    name: 'force-share',
    type: 'switch',
    key: 'forceShare',
    help: 'reads even if others have the image open for writing',
  },
  { name: 'cache.direct', type: 'switch', key: 'direct', help: 'goes around the page cache' },
  { name: 'cache.no-flush', type: 'switch', key: 'unsafe', help: 'makes nothing durable' },
  {
    name: 'discard',
    type: ['ignore', 'off', 'unmap', 'on'],
    key: 'discard',
    help: 'whether discarded data are freed',
  },
  {
    name: 'detect-zeroes',
    type: ['off', 'on', 'unmap'],
    key: 'detectZeroes',
    help: 'makes zero clusters of zeroes that are written',
  },
];
