/** A protocol in one file: what lies behind its names is kept in this process. */
import type { Protocol } from '../../src/storage/protocol.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import { CowherdError } from '../../src/errors.js';

const contents = new Map<string, MemoryContent>();

/** The protocol. */
export const toyProtocol: Protocol = {
  name: 'toy',
  open(name, { readOnly = false }) {
    const content = contents.get(name);
    if (content !== undefined) {
      return Promise.resolve(new MemoryFile(name, { content, readOnly }));
    }
    const message = `Could not open '${name}': No such file or directory`;
    return Promise.reject(new CowherdError('ERR_COWHERD_NOT_FOUND', message, { filename: name }));
  },
  create(name) {
    const content = new MemoryContent();
    contents.set(name, content);
    return Promise.resolve(new MemoryFile(name, { content }));
  },
  identify: (name) => Promise.resolve(name),
};
