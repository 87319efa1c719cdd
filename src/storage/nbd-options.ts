/** How exports of NBD servers are used. */
import type { OpenOption } from './open-option.js';

/** See the file's comment. */
export interface NbdOptions {
  /**
   * Seconds for which a server that has gone is looked for again: requests under way are sent once more.
   * Default 10; 0 fails them at once.
   */
  readonly reconnectSeconds?: number | undefined;
}

/** The same by QEMU's names. */
export const nbdOpenOptions: readonly OpenOption[] = [
  {
    name: 'reconnect-delay',
    type: 'seconds',
    key: 'nbd.reconnectSeconds',
    help: 'seconds for which a server that has gone is looked for again',
  },
];
