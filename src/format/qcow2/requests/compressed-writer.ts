/**
 * Writing compressed clusters. Compressed data are packed one after the other into runs of host
 * clusters, across cluster boundaries; what is packed within one turn of the event loop goes out as
 * one write. An entry is linked only once its data are written.
 *
 * The cluster that is being packed holds a reference for that: without it the cluster could be freed,
 * punched and used again when the data already there are discarded. The reference goes to the data
 * that end with the cluster or go beyond it; what is left before its end is given up into limbo.
 */
import type { BufferPool } from '../../../engine/buffer-pool.js';
import { publishPacked } from '../../../engine/queues/queue-line.js';
import type { Turn } from '../../../engine/queues/turnstile.js';
import { CowherdError, givenAway, problemWith } from '../../../errors.js';
import type { Codec } from '../../../native/codec.js';
import {
  type GuestOffset,
  type HostOffset,
  after,
  asClusterIndex,
  asGuestOffset,
  asHostOffset,
} from '../layout/geometry.js';
import { compressedBuffers } from './compressed-buffers.js';
import type { QueueContext, RemovedClusters } from './queue-context.js';
import { intoLimbo } from './queue-context.js';
import { inWritableSlice, prepareTable } from './slice-section.js';
import type { ImageCodec } from './image-codec.js';
import { refusedRemoval, removedByEntry } from './freed-clusters.js';
import type { Writer } from './writer.js';
import { announced } from '../../../storage/filters/announced.js';

/** Compressed data that have a place in the file and wait to be written. */
interface Packed {
  readonly data: Uint8Array;
  readonly hostOffset: HostOffset;
  readonly written: () => void;
  readonly failed: (error: unknown) => void;
}

/** The search for a place of compressed data; the next one begins when it has ended. */
interface Packing {
  /** Of the cluster. */
  readonly offset: GuestOffset;
  readonly hasEnded: boolean;
  readonly ends: Promise<void>;
}

/** One queue's compressed writes. */
export class CompressedWriter {
  readonly #context: QueueContext;
  readonly #writer: Writer;
  readonly #codec: ImageCodec;
  #outputs: BufferPool | undefined;
  /** Where the next data go, and the end of the last cluster taken for them, in bytes. */
  #next = asHostOffset(0);
  #end = asHostOffset(0);
  /** References to the cluster that `#next` lies within, ours included, if all data are still there. */
  #references = 1;
  #packed: Packed[] = [];
  #packing: Packing = { offset: asGuestOffset(0), hasEnded: true, ends: Promise.resolve() };

  constructor(context: QueueContext, writer: Writer, codec: ImageCodec) {
    this.#context = context;
    this.#writer = writer;
    this.#codec = codec;
  }

  /**
   * Stores one cluster compressed, or as it is where it does not shrink.
   *
   * @param buffer a cluster, or what the disk has of its last one
   * @param offset guest offset in bytes of a cluster
   */
  async write(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    const { metadata, externalData, file, turns } = this.#context;
    const { clusterSize } = metadata.geometry;
    if (externalData) {
      throw problemWith(
        'ERR_COWHERD_UNSUPPORTED',
        file.filename,
        'clusters of an external data file cannot be compressed',
        { offset },
      );
    }
    const cluster = buffer.length === clusterSize ? buffer : padded(buffer, clusterSize);
    // Before a buffer: those that have one never wait for those that wait for one.
    const turn = turns?.take(() => describeWrite(offset));
    const outputs = (this.#outputs ??= compressedBuffers(clusterSize, metadata.control.watchdog));
    try {
      const output = await outputs.lend(() => describeWrite(offset));
      try {
        await this.#writeThrough(cluster, buffer, offset, output, turn);
      } finally {
        outputs.giveBack(output);
      }
    } finally {
      turn?.end();
    }
  }

  /** Compresses a cluster into `output` and stores that, or `buffer` as it is. */
  async #writeThrough(
    cluster: Uint8Array,
    buffer: Uint8Array,
    offset: GuestOffset,
    output: Uint8Array,
    turn: Turn | undefined,
  ): Promise<void> {
    const { metadata } = this.#context;
    const { clusterSize } = metadata.geometry;
    // Its memory was given away meanwhile: no cluster is empty.
    if (cluster.length === 0) throw givenAway(this.#context.file.filename);
    const length = await this.#compress(this.#codec.current, cluster, output, offset);
    if (length < 0 || length >= clusterSize) {
      if (buffer.length === 0) throw givenAway(this.#context.file.filename);
      await this.#writer.write(buffer, offset, turn);
      return;
    }
    if (turn !== undefined) await turn.begins;
    const data = output.subarray(0, length);
    // A new L2 table goes before the data it maps, so that the file can end with them.
    await prepareTable(this.#context, offset);
    const hostOffset = await this.#pack(length, offset);
    turn?.end();
    try {
      await this.#writePacked(data, hostOffset);
      await this.#link(offset, hostOffset, length);
    } catch (error) {
      const cluster = metadata.geometry.clusterAt(hostOffset);
      const count = metadata.geometry.clusters(hostOffset + length) - cluster;
      intoLimbo(this.#context, [{ cluster, count }], false);
      throw error;
    }
    this.#context.unflushed.note();
  }

  /** Gives up the clusters that were taken and not filled. Nothing may be under way. */
  leave(): void {
    const { geometry } = this.#context.metadata;
    const cluster = geometry.clusterAt(this.#next);
    const count = geometry.clusterAt(this.#end) - cluster;
    if (count > 0) intoLimbo(this.#context, [{ cluster, count }], false);
    this.#next = this.#end = asHostOffset(0);
    this.#publish();
  }

  /** Tells which clusters hold a reference of this packer's own. */
  #publish(): void {
    const { metadata, line } = this.#context;
    const { geometry } = metadata;
    const cluster = geometry.clusterAt(this.#next);
    const length = geometry.clusterAt(this.#end) - cluster;
    publishPacked(metadata.control, line, { cluster, length });
  }

  async #compress(
    codec: Codec,
    cluster: Uint8Array,
    output: Uint8Array,
    offset: GuestOffset,
  ): Promise<number> {
    try {
      return await codec.compress(cluster, output);
    } catch (error) {
      if (!(error instanceof CowherdError)) throw error;
      const { filename } = this.#context.file;
      throw problemWith(
        error.code,
        filename,
        `cluster at guest offset ${offset} cannot be compressed: ${error.message}`,
        { offset, cause: error },
      );
    }
  }

  /** Finds a place for compressed data and counts its references, one caller after the other. */
  #pack(length: number, offset: GuestOffset): Promise<HostOffset> {
    const { control } = this.#context.metadata;
    const before = this.#packing;
    const describe = (): string => `a place behind the data of ${describeWrite(before.offset)}`;
    const begins = before.hasEnded ? before.ends : control.watchdog.watch(before.ends, describe);
    const place = begins
      .then(() => this.#place(length))
      .finally(() => {
        this.#publish();
      });
    const packing = { offset, hasEnded: false, ends: Promise.resolve() };
    const end = (): void => {
      packing.hasEnded = true;
    };
    packing.ends = place.then(end, end);
    this.#packing = packing;
    return place;
  }

  async #place(length: number): Promise<HostOffset> {
    const { arena, metadata } = this.#context;
    const { geometry } = metadata;
    const { clusterSize, maxRefcount } = geometry;
    while (this.#next + length > this.#end) {
      const start = geometry.startOf(asClusterIndex((await arena.obtain()).cluster));
      if (start !== this.#end) {
        this.leave();
        this.#next = start;
      }
      this.#end = after(start, clusterSize);
    }
    const hostOffset = this.#next;
    const end = after(hostOffset, length);
    const last = geometry.clusterAt(after(end, -1));
    const sameCluster = hostOffset > geometry.startOf(last);
    const references = sameCluster ? this.#references : 1;
    if (end % clusterSize !== 0 && references < maxRefcount) {
      await metadata.allocator.raise(last, 1);
      this.#references = references + 1;
      this.#next = end;
    } else {
      this.#next = geometry.startOf(after(last, 1));
    }
    return hostOffset;
  }

  #writePacked(data: Uint8Array, hostOffset: HostOffset): Promise<void> {
    return new Promise((written, failed) => {
      this.#packed.push({ data, hostOffset, written, failed });
      if (this.#packed.length === 1) setImmediate(() => void this.#writeAll());
    });
  }

  async #writeAll(): Promise<void> {
    const packed = this.#packed.sort((a, b) => a.hostOffset - b.hostOffset);
    this.#packed = [];
    const groups: Packed[][] = [];
    let end = -1;
    for (const piece of packed) {
      if (piece.hostOffset !== end) groups.push([]);
      groups.at(-1)?.push(piece);
      end = piece.hostOffset + piece.data.length;
    }
    await Promise.all(groups.map((group) => this.#writeGroup(group)));
  }

  async #writeGroup(group: readonly Packed[]): Promise<void> {
    const first = group[0];
    try {
      await announced(this.#context.file, { write: 'write_compressed' }).writeVector(
        group.map((piece) => piece.data),
        first.hostOffset,
      );
      for (const piece of group) piece.written();
    } catch (error) {
      for (const piece of group) piece.failed(error);
    }
  }

  async #link(offset: GuestOffset, hostOffset: HostOffset, length: number): Promise<void> {
    const { metadata } = this.#context;
    const { geometry, l2Cache, claims, entries } = metadata;
    const removed: RemovedClusters[] = [];
    // What is not there yet cannot be inflated: the cluster could not be read at all.
    metadata.flushOrder.noteBeforeEntries();
    await inWritableSlice(this.#context, offset, (slot, entry) => {
      if (claims.has(slot, entry)) return undefined;
      const at = slot * l2Cache.sliceSize + entry * geometry.l2EntrySize;
      const refusal = refusedRemoval(this.#context, at);
      if (refusal !== undefined) throw refusal;
      removedByEntry(this.#context, at, removed);
      entries.setCompressed(l2Cache.view, at, hostOffset, length);
      l2Cache.markDirty(slot);
      metadata.flushOrder.noteEntries();
      return true;
    });
    intoLimbo(this.#context, removed, false);
  }
}

/** A compressed write in words, for whoever waits for it. */
function describeWrite(offset: GuestOffset): string {
  return `the compressed write at guest offset ${offset}`;
}

function padded(buffer: Uint8Array, length: number): Uint8Array {
  const whole = new Uint8Array(length);
  whole.set(buffer);
  return whole;
}
