/** Disks of Parallels. */
import type { Format } from '../format.js';

/** The format. */
export const parallelsFormat = {
  name: 'parallels',
  title: 'Parallels',
  recognises: (begin) =>
    (begin.has('WithoutFreeSpace') || begin.has('WithouFreSpacExt')) && begin.uint32LE(16) === 2,
  load: async () => (await import('./driver.js')).parallelsDriver,
} as const satisfies Format;
