/** The format before qcow2. */
import type { Format } from '../format.js';

/** The format. */
export const qcowFormat = {
  name: 'qcow',
  title: 'qcow',
  openChildren: ['backing'],
  recognises: (begin) => begin.has('QFI\xfb') && begin.uint32BE(4) === 1,
  load: async () => (await import('./driver.js')).qcowDriver,
} as const satisfies Format;
