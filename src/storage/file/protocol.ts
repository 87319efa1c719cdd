/** The protocol of names that are paths: files and block devices of the host. */
import { realpath } from 'node:fs/promises';
import { hostPath, nameOfBytes } from '../../byte-names.js';
import type { Protocol } from '../protocol.js';
import { type FileHandle, attachFile, createFile, openFile } from './open-file.js';

/** The protocol. */
export const fileProtocol: Protocol = {
  name: 'file',
  openOptions: [
    {
      name: 'locking',
      type: ['auto', 'on', 'off'],
      key: 'locking',
      means: (value) => (value === 'off' ? value : undefined),
      help: "whether QEMU's image locks are taken",
    },
    {
      name: 'aio',
      type: ['threads', 'native', 'io_uring'],
      key: 'aio',
      // Linux's older interface does for direct files what the present one does for all.
      means: (value) => (value === 'native' ? 'auto' : value),
      help: 'how requests reach the kernel',
    },
    { name: 'drop-cache', type: 'switch', help: 'taken, and changes nothing here' },
  ],
  open: openFile,
  create: createFile,
  attach: (handle) => attachFile(handle as FileHandle),
  identify: async (name) => nameOfBytes(await realpath(hostPath(name), 'buffer')),
};
