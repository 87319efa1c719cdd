/** A queue that reads an image of a mapping. */
import type { QueueCounters } from '../../engine/queues/counters.js';
import { Entrance, type Node } from '../../engine/queues/node.js';
import { problemWith } from '../../errors.js';
import type { BackingReader, FormatQueue, ImageFiles } from '../driver.js';
import { ChunkCache } from './chunk-cache.js';
import type { Mapping, Place } from './mapping.js';

/** See the file's comment. */
export class MappedQueue implements FormatQueue {
  readonly #format: string;
  readonly #mapping: Mapping;
  protected readonly files: ImageFiles;
  protected readonly backing: BackingReader | undefined;
  readonly #counters: QueueCounters;
  readonly #chunks: ChunkCache;
  readonly #entrance: Entrance;

  constructor(
    format: string,
    mapping: Mapping,
    files: ImageFiles,
    backing: BackingReader | undefined,
    node: Node,
    counters: QueueCounters,
  ) {
    this.#format = format;
    this.#mapping = mapping;
    this.files = files;
    this.backing = backing;
    this.#counters = counters;
    this.#entrance = new Entrance(node);
    this.#chunks = new ChunkCache(files);
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    return this.run(() => this.#read(buffer, offset));
  }

  /** Runs a request, and counts it. */
  protected run<Result>(request: () => Promise<Result>): Promise<Result> {
    return this.#counters.run(() => this.#entrance.run(request));
  }

  async #read(buffer: Uint8Array, offset: number): Promise<void> {
    const parts: Promise<void>[] = [];
    try {
      for (let done = 0; done < buffer.length;) {
        let place = this.#mapping.find(offset + done, buffer.length - done);
        if (place instanceof Promise) place = await place;
        const part = buffer.subarray(done, done + place.length);
        const reading = this.#readPart(place, part, offset + done);
        if (reading !== undefined) {
          // Its failure is met below, after all of them have ended: the buffer is theirs until then.
          reading.catch(() => undefined);
          parts.push(reading);
        }
        done += place.length;
      }
    } finally {
      await Promise.allSettled(parts);
    }
    await Promise.all(parts);
  }

  #readPart(place: Place, part: Uint8Array, offset: number): Promise<void> | undefined {
    switch (place.kind) {
      case 'data':
        return this.files[place.file].read(part, place.offset);
      case 'compressed':
        return this.#chunks.read(place.chunk, place.within, part);
      case 'zero':
        part.fill(0);
        return undefined;
      case 'unallocated':
        return this.#readBelow(part, offset);
    }
  }

  #readBelow(part: Uint8Array, offset: number): Promise<void> | undefined {
    const shown = Math.max(0, Math.min(part.length, (this.backing?.size ?? 0) - offset));
    part.fill(0, shown);
    return shown > 0 ? this.backing?.read(part.subarray(0, shown), offset) : undefined;
  }

  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- what can be written to has others
  write(_buffer: Uint8Array, _offset: number): Promise<void> {
    return this.#refuse();
  }

  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- the same
  writeZeroes(_offset: number, _length: number, _unmap: boolean): Promise<void> {
    return this.#refuse();
  }

  discard(): Promise<void> {
    return this.#refuse();
  }

  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- the same
  writeCompressed(_buffer?: Uint8Array, _offset?: number): Promise<void> {
    return this.#refuse();
  }

  #refuse(): Promise<void> {
    const { filename } = this.files[0];
    return Promise.reject(
      problemWith(
        'ERR_COWHERD_UNSUPPORTED',
        filename,
        `the ${this.#format} format cannot do that here`,
      ),
    );
  }

  reserve(): Promise<boolean> {
    return Promise.resolve(false);
  }

  dataCopy(): undefined {
    return undefined;
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  async close(): Promise<void> {
    try {
      await this.#entrance.close();
    } finally {
      await this.backing?.close();
    }
  }
}
