/** The protocol of NBD servers, by the prefixes of its names. */
import { nbdOpenOptions } from '../nbd-options.js';
import type { Protocol } from '../protocol.js';
import { nbdUriOf } from './uri.js';

/** Exports by host and port, and by Unix socket. */
export const nbdProtocols: readonly Protocol[] = ['', '+tcp', '+unix']
  .flatMap((kind) => [`nbd${kind}://`, `nbds${kind}://`])
  .map((prefix) => ({
    name: 'nbd',
    prefix,
    openOptions: nbdOpenOptions,
    nameOf: nbdUriOf,
    open: async (name, options) => (await import('./nbd-file.js')).openNbdFile(name, options),
    // What an export holds is overwritten, as on a device; it keeps its length.
    create: async (name, options) =>
      (await import('./nbd-file.js')).openNbdFile(name, { ...options, readOnly: false }),
    attach: async (handle) => {
      const { attachNbdFile } = await import('./nbd-file.js');
      return await attachNbdFile(handle);
    },
    identify: (name) => Promise.resolve(name),
  }));
