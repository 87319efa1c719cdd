/** Growing disks of the Bochs emulator. */
import type { Format } from '../format.js';

/** The format. */
export const bochsFormat = {
  name: 'bochs',
  title: 'Bochs',
  recognises: (begin) =>
    begin.has('Bochs Virtual HD Image') &&
    begin.has('Redolog\0', 32) &&
    begin.has('Growing\0', 48) &&
    [0x00010000, 0x00020000].includes(begin.uint32LE(64)),
  load: async () => (await import('./driver.js')).bochsDriver,
} as const satisfies Format;
