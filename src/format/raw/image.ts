/** The raw format: guest offsets are file offsets. The disk ends on a sector, as QEMU has it. */
import { Counter, type QueueCounters } from '../../engine/queues/counters.js';
import { RequestPool } from '../../engine/queues/request-pool.js';
import { Entrance, type Node } from '../../engine/queues/node.js';
import { givenAway, problemWith } from '../../errors.js';
import { reserveBlocks } from '../../storage/preallocate.js';
import { announced } from '../../storage/filters/announced.js';
import type { StorageFile } from '../../storage/storage.js';
import {
  type BackingReader,
  type DataCopy,
  type DiskResizing,
  type FillRule,
  type FormatHandle,
  type FormatImage,
  type FormatQueue,
  type ImageFiles,
  type StoredExtent,
  copiedBytes,
} from '../driver.js';
import type { FormatFacts } from '../facts.js';
import { fileResizing } from '../file-resizing.js';

const sectorSize = 512;

/** The events that requests of a disk are. */
const rawEvents = { read: 'read_aio', write: 'write_aio', flush: 'flush_to_disk' };

/** What another thread needs to have a raw image open too. */
export interface RawHandle extends FormatHandle {
  readonly format: 'raw';
  /** Virtual size in bytes. */
  readonly size: number;
}

/** Bytes that a disk can have. */
export const mostBytes = Math.floor(Number.MAX_SAFE_INTEGER / sectorSize) * sectorSize;

/** Opens a file as a raw image, or one that becomes a disk of whatever size is written. */
export async function openRaw(
  file: StorageFile,
  node: Node,
  isOpenEnded = false,
): Promise<RawImage> {
  const length = isOpenEnded && !file.limits.blockDevice ? mostBytes : await file.size();
  return new RawImage(file, Math.ceil(length / sectorSize) * sectorSize, node);
}

/** A raw image open on this thread. */
export class RawImage implements FormatImage {
  readonly size: number;
  readonly clusterSize = undefined;
  readonly isFlat = true;
  readonly backing = undefined;
  readonly resizing: DiskResizing;
  readonly #file: StorageFile;
  readonly #node: Node;

  constructor(file: StorageFile, size: number, node: Node) {
    this.#file = file;
    this.size = size;
    this.#node = node;
    this.resizing = fileResizing(file, node);
  }

  handle(): RawHandle {
    return { format: 'raw', size: this.#node.size };
  }

  openQueue(
    [file]: ImageFiles,
    _backing: BackingReader | undefined,
    counters: QueueCounters,
  ): FormatQueue {
    return new RawQueue(announced(file, rawEvents), new Entrance(this.#node), counters);
  }

  async endAt(size: number): Promise<void> {
    if (!this.#file.limits.blockDevice) await this.#file.truncate(size);
  }

  async *extents(
    offset: number,
    length: number,
    signal?: AbortSignal,
  ): AsyncGenerator<StoredExtent> {
    const { filename } = this.#file;
    const end = offset + length;
    for (let start = offset; start < end;) {
      signal?.throwIfAborted();
      const status = await this.#file.status(start, end - start);
      const part = Math.min(status.length, end - start);
      yield {
        start,
        length: part,
        present: true,
        zero: !status.data,
        data: status.data,
        compressed: false,
        offset: start,
        filename,
      };
      start += part;
    }
  }

  facts(): Promise<FormatFacts> {
    return Promise.resolve({ dirty: false, snapshots: [] });
  }

  async close(): Promise<void> {
    if (!this.#file.readOnly) await this.#file.flush();
  }
}

class RawQueue implements FormatQueue {
  readonly #file: StorageFile;
  readonly #counters: QueueCounters;
  readonly #entrance: Entrance;
  readonly #transfers: RequestPool;

  constructor(file: StorageFile, entrance: Entrance, counters: QueueCounters) {
    this.#file = file;
    this.#entrance = entrance;
    this.#counters = counters;
    this.#transfers = new RequestPool(counters, () => {
      this.#entrance.leave();
    });
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    if (!this.#entrance.tryEnter()) {
      return this.#onceOpen(buffer, () =>
        this.#transfers.submitRead(this.#file, buffer, offset, 0),
      );
    }
    return this.#transfers.submitRead(this.#file, buffer, offset, 0);
  }

  write(buffer: Uint8Array, offset: number): Promise<void> {
    if (!this.#entrance.tryEnter()) {
      return this.#onceOpen(buffer, () =>
        this.#transfers.submitWrite(this.#file, buffer, offset, 0, offset),
      );
    }
    return this.#transfers.submitWrite(this.#file, buffer, offset, 0, offset);
  }

  readVector(buffers: readonly Uint8Array[], _length: number, offset: number): Promise<void> {
    return this.#run(() => this.#file.readVector(buffers, offset));
  }

  writeVector(buffers: readonly Uint8Array[], _length: number, offset: number): Promise<void> {
    return this.#run(() => this.#file.writeVector(buffers, offset));
  }

  /** Submits a request once the gate is open, unless its buffer was given away meanwhile. */
  async #onceOpen(buffer: Uint8Array, submit: () => Promise<void>): Promise<void> {
    const { length } = buffer;
    this.#counters.add(Counter.gateWaits);
    await this.#entrance.enter();
    if (buffer.length === length) return submit();
    this.#entrance.leave();
    throw givenAway(this.#file.filename);
  }

  writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    return this.#run(() => this.#file.writeZeroes(offset, length, unmap));
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.#run(() => this.#file.discard(offset, length));
  }

  writeCompressed(): Promise<void> {
    return Promise.reject(
      problemWith(
        'ERR_COWHERD_UNSUPPORTED',
        this.#file.filename,
        'the raw format does not support compression',
      ),
    );
  }

  reserve(offset: number, length: number): Promise<boolean> {
    return this.#entrance.run(() => reserveBlocks(this.#file, offset, length));
  }

  dataCopy(rule: FillRule): DataCopy {
    const copier = this.#file.dataCopier({ granule: 0, ...rule });
    return {
      mostBytes: copiedBytes,
      granule: 1,
      copy: (segments, offset, length) =>
        this.#run(async () => {
          const { parts, failure } = await copier.copy(segments, offset, length);
          return failure === undefined ? parts : undefined;
        }),
    };
  }

  flush(): Promise<void> {
    return this.#run(() => this.#file.flush());
  }

  settle(): Promise<void> {
    return Promise.resolve();
  }

  #run<Result>(request: () => Promise<Result>): Promise<Result> {
    return this.#counters.run(() => this.#entrance.run(request));
  }

  close(): Promise<void> {
    return this.#entrance.close();
  }
}
