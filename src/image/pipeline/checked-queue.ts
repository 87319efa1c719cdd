/** A queue as people hold it: requests are checked, counted and throttled before the format sees them. */
import type { Readable, Writable } from 'node:stream';
import { types } from 'node:util';
import { Counter, type QueueCounters } from '../../engine/queues/counters.js';
import type { Node } from '../../engine/queues/node.js';
import type { Throttle } from '../../engine/throttle.js';
import { CowherdError, problemWith } from '../../errors.js';
import type { DataCopy, FillRule, FormatQueue } from '../../format/driver.js';
import { probeBytes } from '../../format/probe.js';
import { mistakenFormat } from '../../format/registry.js';
import { isZero } from '../../native/zero-scan.js';
import type { ImageQueue, ReadStreamOptions, WriteStreamOptions } from '../api/image.js';
import { type BufferLike, bytesOf, bytesOfEach } from '../api/buffer.js';
import { type StreamSource, createReadStream } from '../streams/read-stream.js';
import { totalLength } from '../../storage/vector.js';
import { createWriteStream } from '../streams/write-stream.js';
import { gathered, readVector, writeVector } from './vectored.js';

const sectorSize = 512;

/** What a queue checks requests against. */
export interface QueueRules {
  readonly filename: string;
  /** Says how large the disk is, and whether it may be changed. */
  readonly node: Node;
  readonly clusterSize: number | undefined;
  /** Whether the image is raw only because it looked like nothing else, and must stay so. */
  readonly probed: boolean;
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  /** Whether clusters are kept that are discarded, or zeroed with leave to free them. */
  readonly isDiscardIgnored: boolean;
  /** Of the image and of the queue. */
  readonly throttles: readonly Throttle[];
  /** How the image is stored, for streams. */
  readonly map: StreamSource['map'];
}

/** See the file's comment. */
export class CheckedQueue implements ImageQueue {
  readonly #rules: QueueRules;
  readonly #queue: FormatQueue;
  readonly #counters: QueueCounters;
  readonly #throttled: boolean;
  readonly #onClose: () => Promise<void>;
  #closing: Promise<void> | undefined;
  /** Requests that a throttle holds back. */
  readonly #held = new Set<Promise<void>>();

  constructor(
    rules: QueueRules,
    queue: FormatQueue,
    counters: QueueCounters,
    onClose: () => Promise<void>,
  ) {
    this.#rules = rules;
    this.#queue = queue;
    this.#counters = counters;
    this.#throttled = rules.throttles.length > 0;
    this.#onClose = onClose;
  }

  read(buffer: BufferLike, offset: number): Promise<void> {
    const bytes = this.#bytesOf(buffer);
    if (!types.isUint8Array(bytes)) return Promise.reject(bytes);
    const { length } = bytes;
    const refusal = this.#refusal(offset, length, false);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (length === 0) return Promise.resolve();
    this.#counters.add(Counter.reads);
    this.#counters.add(Counter.bytesRead, length);
    if (this.#throttled) return this.#hold(length, () => this.#queue.read(bytes, offset));
    return this.#queue.read(bytes, offset);
  }

  write(buffer: BufferLike, offset: number): Promise<void> {
    const bytes = this.#bytesOf(buffer);
    if (!types.isUint8Array(bytes)) return Promise.reject(bytes);
    const { length } = bytes;
    const refusal = this.#refusal(offset, length, true);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (length === 0) return Promise.resolve();
    const { detectZeroes } = this.#rules;
    if (detectZeroes !== 'off' && isZero(bytes)) {
      return this.writeZeroes(offset, length, { unmap: detectZeroes === 'unmap' });
    }
    this.#counters.add(Counter.writes);
    this.#counters.add(Counter.bytesWritten, length);
    if (this.#rules.probed && offset < probeBytes) return this.#writeBegin(bytes, offset);
    if (this.#throttled) return this.#hold(length, () => this.#queue.write(bytes, offset));
    return this.#queue.write(bytes, offset);
  }

  async readv(buffers: readonly BufferLike[], offset: number): Promise<void> {
    const parts = bytesOfEach(buffers, this.#rules.filename);
    const length = totalLength(parts);
    const refusal = this.#refusal(offset, length, false);
    if (refusal !== undefined) throw refusal;
    if (length === 0) return;
    this.#counters.add(Counter.reads);
    this.#counters.add(Counter.bytesRead, length);
    await this.#hold(length, () => readVector(this.#queue, parts, offset));
  }

  async writev(buffers: readonly BufferLike[], offset: number): Promise<void> {
    const parts = bytesOfEach(buffers, this.#rules.filename);
    const length = totalLength(parts);
    const refusal = this.#refusal(offset, length, true);
    if (refusal !== undefined) throw refusal;
    if (length === 0) return;
    const { detectZeroes, probed } = this.#rules;
    // What is looked at first has to stay as it was then.
    if (detectZeroes !== 'off' || (probed && offset < probeBytes)) {
      await this.write(gathered(parts, length), offset);
      return;
    }
    this.#counters.add(Counter.writes);
    this.#counters.add(Counter.bytesWritten, length);
    await this.#hold(length, () => writeVector(this.#queue, parts, offset));
  }

  writeZeroes(
    offset: number,
    length: number,
    options: { readonly unmap?: boolean | undefined } = {},
  ): Promise<void> {
    const refusal = this.#refusal(offset, length, true);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (length === 0) return Promise.resolve();
    this.#counters.add(Counter.writeZeroes);
    return this.#hold(length, () =>
      this.#queue.writeZeroes(
        offset,
        length,
        options.unmap === true && !this.#rules.isDiscardIgnored,
      ),
    );
  }

  discard(offset: number, length: number): Promise<void> {
    const refusal = this.#refusal(offset, length, true);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (length === 0) return Promise.resolve();
    this.#counters.add(Counter.discards);
    if (this.#rules.isDiscardIgnored) return Promise.resolve();
    return this.#hold(length, () => this.#queue.discard(offset, length));
  }

  writeCompressed(buffer: BufferLike, offset: number): Promise<void> {
    const bytes = this.#bytesOf(buffer);
    if (!types.isUint8Array(bytes)) return Promise.reject(bytes);
    const { length } = bytes;
    const refusal = this.#refusal(offset, length, true) ?? this.#clusterRefusal(offset, length);
    if (refusal !== undefined) return Promise.reject(refusal);
    this.#counters.add(Counter.compressedWrites);
    this.#counters.add(Counter.bytesWritten, length);
    return this.#hold(length, () => this.#queue.writeCompressed(bytes, offset));
  }

  async reserve(offset: number, length: number): Promise<boolean> {
    const refusal = this.#refusal(offset, length, true);
    if (refusal !== undefined) throw refusal;
    return length > 0 && (await this.#queue.reserve(offset, length));
  }

  /** A way to fill the image from other files; see `image/graph/data-copy`. */
  dataCopy(rule: FillRule): DataCopy | undefined {
    const { node, probed, detectZeroes } = this.#rules;
    const readOnly = !node.permissions.write;
    if (this.#closing !== undefined || readOnly || probed || detectZeroes !== 'off')
      return undefined;
    if (this.#throttled) return undefined;
    const inner = this.#queue.dataCopy(rule);
    if (inner === undefined) return undefined;
    const { mostBytes, granule } = inner;
    const copy: DataCopy['copy'] = async (segments, offset, length) => {
      const refusal = this.#refusal(offset, length, true);
      if (refusal !== undefined) throw refusal;
      const parts = await inner.copy(segments, offset, length);
      for (const part of parts ?? []) {
        this.#counters.add(Counter.writes);
        this.#counters.add(Counter.bytesWritten, part.length);
      }
      return parts;
    };
    return { mostBytes, granule, copy };
  }

  flush(): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(this.#closed());
    if (!this.#rules.node.permissions.write) return Promise.resolve();
    this.#counters.add(Counter.flushes);
    return this.#queue.flush();
  }

  settle(): Promise<void> {
    if (this.#closing !== undefined) return Promise.reject(this.#closed());
    if (!this.#rules.node.permissions.write) return Promise.resolve();
    return this.#queue.settle?.() ?? this.#queue.flush();
  }

  createReadStream(options: ReadStreamOptions = {}): Readable {
    const refusal = this.#refusal(0, 0, false);
    if (refusal !== undefined) throw refusal;
    const { filename, node, map } = this.#rules;
    const read: StreamSource['read'] = (buffer, offset) => this.read(buffer, offset);
    return createReadStream({ filename, size: node.size, read, map }, options);
  }

  createWriteStream(options: WriteStreamOptions = {}): Writable {
    const refusal = this.#refusal(0, 0, true);
    if (refusal !== undefined) throw refusal;
    const { filename, node } = this.#rules;
    const { size } = node;
    const write = (bytes: Uint8Array, offset: number): Promise<void> => this.write(bytes, offset);
    return createWriteStream({ filename, size, write, flush: () => this.flush() }, options);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    try {
      await Promise.allSettled(this.#held);
      await this.#queue.close();
    } finally {
      this.#counters.release();
      await this.#onClose();
    }
  }

  /** Starts a request once every throttle allows it. */
  #hold(bytes: number, request: () => Promise<void>): Promise<void> {
    let waitMs = 0;
    for (const throttle of this.#rules.throttles) waitMs = Math.max(waitMs, throttle.spend(bytes));
    if (waitMs < 1) return request();
    this.#counters.add(Counter.throttleWaits);
    const held = new Promise<void>((resolve) => setTimeout(resolve, waitMs)).then(request);
    this.#held.add(held);
    const release = (): void => {
      this.#held.delete(held);
    };
    held.then(release, release);
    return held;
  }

  /**
   * Writes at the begin of an image that was probed to be raw, unless it would be another format
   * from then on: a guest could make its host open any file as the backing file of its disk.
   */
  async #writeBegin(buffer: Uint8Array, offset: number): Promise<void> {
    const begin = new Uint8Array(Math.min(probeBytes, this.#rules.node.size));
    await this.#queue.read(begin, 0);
    begin.set(buffer.subarray(0, begin.length - offset), offset);
    const format = mistakenFormat(begin);
    if (format !== undefined) {
      const { filename } = this.#rules;
      throw new CowherdError(
        'ERR_COWHERD_INVALID_ARGUMENT',
        `'${filename}' was probed to be raw, and this write would make it look like ${format.name}; open it with format 'raw'`,
        { filename, offset },
      );
    }
    await this.#hold(buffer.length, () => this.#queue.write(buffer, offset));
  }

  #closed(): CowherdError {
    const { filename } = this.#rules;
    return new CowherdError('ERR_COWHERD_CLOSED', `'${filename}' is closed`, { filename });
  }

  /** The bytes of a buffer, or why it is none. */
  #bytesOf(buffer: BufferLike): Uint8Array | CowherdError {
    try {
      return bytesOf(buffer, this.#rules.filename);
    } catch (error) {
      return error as CowherdError;
    }
  }

  #refusal(offset: number, length: number, writes: boolean): CowherdError | undefined {
    const { filename, node } = this.#rules;
    if (this.#closing !== undefined) return this.#closed();
    const { size } = node;
    if (
      !Number.isInteger(offset) ||
      !Number.isInteger(length) ||
      offset < 0 ||
      length < 0 ||
      offset + length > size ||
      isInexact(offset, length)
    ) {
      const wrong: unknown = [offset, length].find((value: unknown) => typeof value !== 'number');
      if (wrong !== undefined) {
        const why = `guest offsets and lengths are numbers of bytes, which a ${typeof wrong} is not`;
        return problemWith('ERR_COWHERD_OUT_OF_RANGE', filename, why);
      }
      return problemWith(
        'ERR_COWHERD_OUT_OF_RANGE',
        filename,
        `${length} bytes at guest offset ${offset} do not lie within the disk of ${size} bytes`,
        { offset },
      );
    }
    if (writes && !node.permissions.write) {
      return new CowherdError('ERR_COWHERD_READ_ONLY', `'${filename}' is open read-only`, {
        filename,
        offset,
      });
    }
    return undefined;
  }

  #clusterRefusal(offset: number, length: number): CowherdError | undefined {
    const { filename, node, clusterSize } = this.#rules;
    if (clusterSize === undefined) return undefined;
    const whole = Math.min(clusterSize, node.size - offset);
    if (offset % clusterSize === 0 && length === whole) return undefined;
    return problemWith(
      'ERR_COWHERD_INVALID_ARGUMENT',
      filename,
      `compressed writes take one cluster of ${clusterSize} bytes at its guest offset`,
      { offset },
    );
  }
}

/** Whether a range beyond 2^53 is no whole sectors, so that its end may be no number. */
function isInexact(offset: number, length: number): boolean {
  if (offset + length <= Number.MAX_SAFE_INTEGER) return false;
  return offset % sectorSize !== 0 || length % sectorSize !== 0;
}
