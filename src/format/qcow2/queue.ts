/**
 * One queue of an open qcow2 image: passes requests through the gate, takes the short way for those
 * whose clusters are mapped and cached, and gives the others to the parts that execute them.
 */
import { Arena } from '../../engine/arena.js';
import { Counter, type QueueCounters } from '../../engine/counters.js';
import { QueueGate, gateClosed } from '../../engine/gate.js';
import { Limbo } from '../../engine/limbo.js';
import { publishReserved, releaseQueueLine, takeQueueLine } from '../../engine/queue-line.js';
import { RequestPool } from '../../engine/request-pool.js';
import { Turnstile } from '../../engine/turnstile.js';
import { UnflushedData } from '../../engine/unflushed.js';
import type { StorageFile } from '../../storage/storage.js';
import type { BackingReader, FormatQueue } from '../driver.js';
import { AllocatingWrites } from './allocating-writes.js';
import { CompressedReader } from './compressed-reader.js';
import { CompressedWriter } from './compressed-writer.js';
import type { QueueContext } from './context.js';
import { Autoclear, type Qcow2Header } from './header.js';
import type { Qcow2Metadata } from './metadata.js';
import { Reader } from './reader.js';
import { reclaim } from './reclaim.js';
import { Writer } from './writer.js';
import { Zeroing } from './zeroing.js';

/** Bytes of clusters in limbo beyond which a flush is begun to get them back. */
const limboBytesBeforeFlush = 64 * 1024 * 1024;

/** What a queue is opened with. */
export interface Qcow2QueueOptions {
  readonly metadata: Qcow2Metadata;
  readonly header: Qcow2Header;
  readonly size: number;
  readonly file: StorageFile;
  readonly dataFile: StorageFile | undefined;
  readonly backing: BackingReader | undefined;
  readonly counters: QueueCounters;
  /** Whether writes take clusters in the order in which they begin. */
  readonly inOrder: boolean;
  /** Makes the header ready for the first change of guest data. */
  readonly beforeFirstChange: () => Promise<void>;
  readonly onClosed: () => void;
}

/** One queue of a qcow2 image. */
export class Qcow2Queue implements FormatQueue {
  readonly #context: QueueContext;
  readonly #line: number;
  readonly #gate: QueueGate;
  readonly #reader: Reader;
  readonly #writer: Writer;
  readonly #zeroing: Zeroing;
  readonly #compressedWriter: CompressedWriter;
  readonly #reads: RequestPool;
  readonly #writes: RequestPool;
  readonly #allocatingWrites: AllocatingWrites;
  readonly #beforeFirstChange: () => Promise<void>;
  readonly #onClosed: () => void;
  #changed = false;
  #reclaiming: Promise<void> | undefined;

  constructor(options: Qcow2QueueOptions) {
    const { metadata, header, file, dataFile, backing, size, counters } = options;
    const { geometry, allocator, control } = metadata;
    this.#line = takeQueueLine(control);
    const unflushed = new UnflushedData(control, this.#line);
    this.#context = {
      metadata,
      file,
      dataFile: dataFile ?? file,
      externalData: dataFile !== undefined,
      rawExternalData: (header.autoclearFeatures & Autoclear.rawExternalData) !== 0,
      backing,
      size,
      version: header.version,
      arena: new Arena(async (wanted) => {
        const run = await allocator.reserve(wanted);
        publishReserved(control, this.#line, run);
        return run;
      }, geometry.clusterSize),
      turns: options.inOrder ? new Turnstile() : undefined,
      limbo: new Limbo(),
      unflushed,
      counters,
    };
    this.#beforeFirstChange = options.beforeFirstChange;
    this.#onClosed = options.onClosed;
    this.#gate = new QueueGate(control, this.#line);
    const compressed = new CompressedReader(
      file,
      geometry.clusterSize,
      control,
      header.compressionType,
    );
    this.#reader = new Reader(this.#context, compressed);
    this.#writer = new Writer(this.#context, this.#reader);
    this.#zeroing = new Zeroing(this.#context, this.#reader, this.#writer);
    this.#compressedWriter = new CompressedWriter(
      this.#context,
      this.#writer,
      header.compressionType,
    );
    this.#reads = new RequestPool(counters, (epoch) => {
      this.#gate.leave(epoch);
    });
    const writeEnded = (epoch: number): void => {
      unflushed.note();
      this.#gate.leave(epoch);
    };
    this.#writes = new RequestPool(counters, writeEnded);
    this.#allocatingWrites = new AllocatingWrites(this.#context, writeEnded);
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    const epoch = this.#gate.tryEnter();
    if (epoch !== gateClosed) {
      const hostOffset = this.#reader.locate(offset, buffer.length);
      if (hostOffset >= 0) {
        return this.#reads.submitRead(this.#context.dataFile, buffer, hostOffset, epoch);
      }
    }
    return this.#run(epoch, () => this.#reader.read(buffer, offset));
  }

  write(buffer: Uint8Array, offset: number): Promise<void> {
    const epoch = this.#gate.tryEnter();
    const { corruptMark } = this.#context.metadata;
    if (epoch !== gateClosed && this.#changed && !corruptMark.isSet) {
      const hostOffset = this.#writer.locate(offset, buffer.length);
      if (hostOffset >= 0) {
        return this.#writes.submitWrite(this.#context.dataFile, buffer, hostOffset, epoch);
      }
      const allocating = this.#allocatingWrites.tryWrite(buffer, offset, epoch);
      if (allocating !== undefined) return allocating;
    }
    return this.#runChange(epoch, () => this.#writer.write(buffer, offset));
  }

  writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    return this.#runChange(this.#gate.tryEnter(), () =>
      this.#zeroing.writeZeroes(offset, length, unmap),
    );
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#runChange(this.#gate.tryEnter(), () => this.#zeroing.discard(offset, length));
  }

  writeCompressed(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#runChange(this.#gate.tryEnter(), () =>
      this.#compressedWriter.write(buffer, offset),
    );
  }

  flush(): Promise<void> {
    return this.#gate.beside(() =>
      this.#context.counters.run(() => this.#noteCorruption(() => this.#flushAndReclaim())),
    );
  }

  async close(): Promise<void> {
    const { metadata, backing, unflushed } = this.#context;
    await this.#gate.idle();
    try {
      // What a poisoned or corrupt image holds in memory is not to be trusted on disk.
      if (this.#changed && !metadata.poison.isSet && !metadata.corruptMark.isSet) {
        this.#compressedWriter.leave();
        await this.#noteCorruption(() => this.#giveBackClusters());
      }
    } finally {
      unflushed.handOver();
      releaseQueueLine(metadata.control, this.#line);
      this.#onClosed();
      await backing?.close();
    }
  }

  /**
   * Gives back what the arena did not use, and what waits in limbo, while no request of any queue runs;
   * the queue goes on afterwards.
   */
  async settle(): Promise<void> {
    if (this.#changed) await this.#noteCorruption(() => this.#giveBackClusters());
  }

  /** Gives back what the arena did not use, and what waits in limbo. */
  async #giveBackClusters(): Promise<void> {
    const { arena, limbo, metadata } = this.#context;
    for (const { cluster, length } of arena.drain()) {
      for (let done = 0; done < length;) {
        done += await metadata.allocator.lower(cluster + done, length - done);
      }
    }
    let damage: unknown;
    // A flush still under way may have taken clusters out of limbo without having lowered them yet.
    while (limbo.clusters > 0 || this.#reclaiming !== undefined) {
      const before = limbo.clusters;
      try {
        await this.#flushAndReclaim();
      } catch (error) {
        // Counts that are too low keep no others from being lowered; anything else may go on failing.
        if (limbo.clusters >= before) throw error;
        damage ??= error;
      }
      // What is left waits for a request of another queue.
      if (limbo.clusters > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    if (damage !== undefined) throw damage as Error;
  }

  /** Runs a request that takes the long way; `epoch` may be `gateClosed`. */
  #run(epoch: number, request: () => Promise<void>): Promise<void> {
    return this.#context.counters.run(async () => {
      const entered = epoch === gateClosed ? await this.#enter() : epoch;
      try {
        await this.#noteCorruption(request);
      } finally {
        this.#gate.leave(entered);
      }
    });
  }

  /** Runs a section; if it comes upon damage, that is noted in the image before it fails. */
  async #noteCorruption(section: () => Promise<void>): Promise<void> {
    try {
      await section();
    } catch (error) {
      await this.#context.metadata.corruptMark.note(error);
      throw error;
    }
  }

  #enter(): Promise<number> {
    this.#context.counters.add(Counter.gateWaits);
    return this.#gate.enter();
  }

  #runChange(epoch: number, request: () => Promise<void>): Promise<void> {
    return this.#gate.beside(() => this.#change(epoch, request));
  }

  async #change(epoch: number, request: () => Promise<void>): Promise<void> {
    await this.#run(epoch, async () => {
      this.#context.metadata.corruptMark.check();
      if (!this.#changed) {
        await this.#beforeFirstChange();
        this.#changed = true;
      }
      await request();
    });
    const { limbo, metadata } = this.#context;
    if (limbo.clusters * metadata.geometry.clusterSize > limboBytesBeforeFlush) {
      await this.#flushAndReclaim();
    }
  }

  async #flushAndReclaim(): Promise<void> {
    const { metadata } = this.#context;
    metadata.poison.check();
    metadata.corruptMark.check();
    await metadata.flushOrder.flush();
    await this.#reclaim();
  }

  /** Concurrent calls share one pass. */
  async #reclaim(): Promise<void> {
    this.#reclaiming ??= reclaim(this.#context).finally(() => {
      this.#reclaiming = undefined;
    });
    await this.#reclaiming;
  }
}
