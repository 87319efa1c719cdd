/** Making a new VDI image: its header, a block map of nothing, and the blocks if they are wanted. */
import { randomBytes } from 'node:crypto';
import { CowherdError } from '../../errors.js';
import { maxVdiBlocks } from '../../limits.js';
import type { ImageCreation } from '../driver.js';
import { encodeVdiHeader, vdiBlockBytes, vdiHeaderBytes } from './header.js';

const entryBytes = 4;
const uuidBytes = 16;

/** The creation. */
export const vdiCreation: ImageCreation = {
  check(_options, size) {
    if (size <= maxVdiBlocks * vdiBlockBytes) return;
    const message = `Unsupported VDI image size (size is ${size}, max supported is ${maxVdiBlocks * vdiBlockBytes})`;
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
  },
  async create({ file, size, options: { static: isStatic = false }, signal }) {
    const blocks = Math.ceil(size / vdiBlockBytes);
    const mapBytes = blocks * entryBytes;
    // Blocks begin where blocks of the host do.
    const dataOffset = Math.ceil((vdiHeaderBytes + mapBytes) / vdiBlockBytes) * vdiBlockBytes;
    await file.truncate(dataOffset + (isStatic ? blocks * vdiBlockBytes : 0));
    for (let done = 0; done < mapBytes; done += vdiBlockBytes) {
      signal?.throwIfAborted();
      const bytes = new Uint8Array(Math.min(vdiBlockBytes, mapBytes - done)).fill(0xff);
      if (isStatic) {
        const view = new DataView(bytes.buffer);
        for (let at = 0; at < bytes.length; at += entryBytes) {
          view.setUint32(at, (done + at) / entryBytes, true);
        }
      }
      await file.write(bytes, vdiHeaderBytes + done);
    }
    const header = encodeVdiHeader({
      size,
      mapOffset: vdiHeaderBytes,
      dataOffset,
      isStatic,
      blocks,
      allocatedBlocks: isStatic ? blocks : 0,
      uuids: [randomBytes(uuidBytes), randomBytes(uuidBytes)],
    });
    // Last, so that what is cut off is no image at all.
    await file.flush();
    await file.write(header, 0);
    await file.flush();
  },
};
