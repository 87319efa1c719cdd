/** Compressed loop devices of old live systems. */
import type { Format } from '../format.js';

/** The format. */
export const cloopFormat = {
  name: 'cloop',
  title: 'cloop',
  recognises: (begin) =>
    begin.has(
      '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n',
    ),
  load: async () => (await import('./driver.js')).cloopDriver,
} as const satisfies Format;
