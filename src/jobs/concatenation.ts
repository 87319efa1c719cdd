/** Several source images read as one disk, one after the other, as `qemu-img convert` takes them. */
import type { CowherdError } from '../errors.js';
import type { Image, RequestTarget } from '../image/api/image.js';
import { isFlat, plainBytes } from '../image/graph/data-copy.js';
import { blockStatus, salvagedStatus } from './block-status.js';
import { HostHoles, type SourceExtent } from './host-holes.js';

/** What convert reads from. */
export interface Source {
  /** Bytes. */
  readonly size: number;
  /**
   * How the disk is stored, ascending and covering it.
   *
   * @param onFailure told of each stretch of which that cannot be told; without it that is the end
   * @throws BlockStatusError
   */
  map(
    signal: AbortSignal | undefined,
    onFailure: ((failure: CowherdError) => void) | undefined,
  ): AsyncIterable<SourceExtent>;
  /** Fills the buffer; `lane` chooses one of the queues. */
  read(buffer: Uint8Array, offset: number, lane: number): Promise<void>;
}

/** One image of a concatenation, with the queues that read it. */
export interface SourcePart {
  readonly image: Image;
  readonly queues: readonly Pick<RequestTarget, 'read'>[];
}

/** Reads the parts as one disk. */
export function concatenate(parts: readonly SourcePart[]): Source {
  const starts: number[] = [];
  let size = 0;
  for (const { image } of parts) {
    starts.push(size);
    size += image.size;
  }
  return {
    size,
    async *map(signal, onFailure) {
      for (const [index, { image }] of parts.entries()) {
        const base = starts[index];
        const extents =
          onFailure === undefined
            ? blockStatus(image, signal)
            : salvagedStatus(image, signal, onFailure);
        const holes = new HostHoles();
        for await (const extent of extents) {
          // Of one that is written to meanwhile, only its queues know where they lie.
          const bytes = image.readOnly ? plainBytes(image, extent) : undefined;
          const moved = { ...extent, start: extent.start + base, bytes };
          const mayHaveHoles = !isFlat(image) && holes.mayBeIn(moved);
          if (mayHaveHoles !== false && (await mayHaveHoles)) yield* holes.without(moved);
          else yield moved;
        }
      }
    },
    async read(buffer, offset, lane) {
      for (const [index, { image, queues }] of parts.entries()) {
        const base = starts[index];
        const from = Math.max(offset, base);
        const to = Math.min(offset + buffer.length, base + image.size);
        if (from >= to) continue;
        const queue = queues[lane % queues.length];
        const whole = to - from === buffer.length;
        await queue.read(whole ? buffer : buffer.subarray(from - offset, to - offset), from - base);
      }
    },
  };
}
