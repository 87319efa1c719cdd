/** Machine state beside the disk of an open image, whichever format it has. */
import { problemWith } from '../../errors.js';
import type { FormatQueue, VmStatePlace } from '../../format/driver.js';
import { type BufferLike, bytesOf } from '../api/buffer.js';
import type { ImageVmState } from '../api/image.js';
import { type ChangeableDisk, checkWritable } from './whole-disk.js';

/** See `Image.vmState`. */
export class VmStateOfImage implements ImageVmState {
  readonly #disk: ChangeableDisk;

  constructor(disk: ChangeableDisk) {
    this.#disk = disk;
  }

  read(buffer: BufferLike, offset: number): Promise<void> {
    return this.#request(buffer, offset, (queue, bytes, at) => queue.readVmState?.(bytes, at));
  }

  write(buffer: BufferLike, offset: number): Promise<void> {
    const { node } = this.#disk;
    return this.#request(buffer, offset, async (queue, bytes, at, place) => {
      checkWritable(this.#disk);
      const end = at + bytes.length;
      if (place.end < end) await node.runAlone(() => place.makeRoom(end));
      await queue.writeVmState?.(bytes, at);
    });
  }

  /** Runs a request between changes of the disk as a whole, since the state lies where the disk ends. */
  async #request(
    buffer: BufferLike,
    offset: number,
    run: (
      queue: FormatQueue,
      bytes: Uint8Array,
      at: number,
      place: VmStatePlace,
    ) => Promise<void> | undefined,
  ): Promise<void> {
    const { filename, format, openQueue, change } = this.#disk;
    const bytes = bytesOf(buffer, filename);
    await change(undefined, async () => {
      const place = format.vmState;
      if (place === undefined) {
        const why = 'the image has no place for machine state';
        throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why);
      }
      const at = place.offset + offset;
      if (!Number.isSafeInteger(offset) || offset < 0 || at + bytes.length > 2 ** 53 - 1) {
        const why = `${bytes.length} bytes of machine state from ${offset} on are beyond what can be addressed`;
        throw problemWith('ERR_COWHERD_OUT_OF_RANGE', filename, why, {
          reason: 'Input/output error',
        });
      }
      const { queue, close } = openQueue();
      try {
        await run(queue, bytes, at, place);
      } finally {
        await close();
      }
    });
  }
}
