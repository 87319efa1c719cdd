/** The protocol of names that are paths: files and block devices of the host. */
import { realpath } from 'node:fs/promises';
import { hostPath, nameOfBytes } from '../../byte-names.js';
import type { Protocol } from '../protocol.js';
import { type FileHandle, attachFile, createFile, openFile } from './open-file.js';

/** The protocol. */
export const fileProtocol: Protocol = {
  name: 'file',
  open: openFile,
  create: createFile,
  attach: (handle) => attachFile(handle as FileHandle),
  identify: async (name) => nameOfBytes(await realpath(hostPath(name), 'buffer')),
};
