/**
 * One queue of an open qcow2 image: passes requests through the gate, takes the short way for those
 * whose clusters are mapped and cached, and gives the others to the parts that execute them.
 */
import { Arena } from '../../../engine/space/arena.js';
import { QueueWord, queueWord } from '../../../engine/words/control-block.js';
import { Counter, type QueueCounters } from '../../../engine/queues/counters.js';
import { QueueGate, gateClosed, runAlone } from '../../../engine/queues/gate.js';
import {
  heldByQueues,
  reservedRest,
  releaseQueueLine,
  takeQueueLine,
} from '../../../engine/queues/queue-line.js';
import { RequestPool, type WriteAgain } from '../../../engine/queues/request-pool.js';
import { Turnstile } from '../../../engine/queues/turnstile.js';
import { UnflushedData } from '../../../engine/flush/unflushed.js';
import { CowherdError, givenAway } from '../../../errors.js';
import { announced } from '../../../storage/filters/announced.js';
import type { StorageFile } from '../../../storage/storage.js';
import type {
  BackingReader,
  DataCopy,
  FillRule,
  FormatQueue,
  PreallocateOptions,
} from '../../driver.js';
import type { PayloadCipher } from '../../encryption/disk-key.js';
import { partsOf, writeWithin } from '../../encryption/partial-sectors.js';
import { Payload, isWhole } from '../../encryption/payload.js';
import {
  type GuestOffset,
  type HostOffset,
  asClusterIndex,
  asGuestOffset,
} from '../layout/geometry.js';
import { AllocatingWrites } from './allocating-writes.js';
import { CompressedReader } from './compressed-reader.js';
import { CompressedWriter } from './compressed-writer.js';
import { ImageCodec } from './image-codec.js';
import type { QueueContext } from './queue-context.js';
import { openDataCopy } from './data-copy.js';
import { Autoclear, type Qcow2Header } from '../layout/header.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { Reader } from './reader.js';
import { reclaim, reclaimAll } from './reclaim.js';
import { Writer } from './writer.js';
import { Preallocating } from './preallocation.js';
import { Zeroing } from './zeroes-and-discards.js';

/** Bytes of clusters in limbo beyond which a flush is begun to get them back: at most so many… */
const mostLimboBytes = 64 * 1024 * 1024;
/** … and this part of a small disk, but not fewer clusters than are worth a flush. */
const limboShareOfDisk = 1 / 32;
const leastLimboClusters = 16;

/** What a queue is opened with. */
export interface Qcow2QueueOptions {
  readonly metadata: Qcow2Metadata;
  readonly header: Qcow2Header;
  readonly file: StorageFile;
  readonly dataFile: StorageFile | undefined;
  readonly backing: BackingReader | undefined;
  readonly counters: QueueCounters;
  /** Whether writes take clusters in the order in which they begin. */
  readonly inOrder: boolean;
  readonly reserveAhead?: boolean;
  /** How guest bytes are enciphered on their way to the file; undefined where they are not. */
  readonly cipher: PayloadCipher | undefined;
  /** Makes the header ready for the first change of guest data. */
  readonly beforeFirstChange: () => Promise<void>;
  readonly onClosed: () => void;
}

/** One queue of a qcow2 image. Who calls it through `FormatQueue` gives guest offsets as plain numbers. */
export class Qcow2Queue implements FormatQueue {
  readonly #context: QueueContext;
  readonly #line: number;
  readonly #gate: QueueGate;
  readonly #reader: Reader;
  readonly #writer: Writer;
  readonly #zeroing: Zeroing;
  readonly #preallocating: Preallocating;
  readonly #compressedWriter: CompressedWriter;
  readonly #reads: RequestPool;
  readonly #writes: RequestPool;
  readonly #allocatingWrites: AllocatingWrites;
  readonly #beforeFirstChange: () => Promise<void>;
  readonly #onClosed: () => void;
  #changed = false;
  #reclaiming: Promise<void> | undefined;
  #reclaimingAlone: Promise<void> | undefined;

  constructor(options: Qcow2QueueOptions) {
    const { metadata, header, file, dataFile, backing, counters } = options;
    const { geometry, control } = metadata;
    this.#line = takeQueueLine(control);
    control.store(queueWord(this.#line, QueueWord.thread), control.thread);
    const unflushed = new UnflushedData(control, this.#line);
    this.#context = {
      metadata,
      file,
      payload: new Payload(
        announced(dataFile ?? file, { read: 'read_aio', write: 'write_aio' }, file.events),
        dataFile === undefined ? geometry.clusterSize : 0,
        options.cipher,
      ),
      externalData: dataFile !== undefined,
      rawExternalData: (header.autoclearFeatures & Autoclear.rawExternalData) !== 0,
      backing,
      get version() {
        return metadata.headerFile.version;
      },
      line: this.#line,
      arena: new Arena({
        memory: control,
        line: this.#line,
        clusterSize: geometry.clusterSize,
        get diskSize() {
          return metadata.diskSize;
        },
        reserve: (wanted, follows) => metadata.reserve(wanted, options.reserveAhead, follows),
        reservesAhead: options.reserveAhead,
      }),
      turns: options.inOrder ? new Turnstile(control.watchdog) : undefined,
      unflushed,
      counters,
    };
    this.#beforeFirstChange = options.beforeFirstChange;
    this.#onClosed = options.onClosed;
    this.#gate = new QueueGate(control, this.#line);
    const codec = new ImageCodec(metadata.headerFile);
    const compressedFile = announced(file, { read: 'read_compressed' });
    const compressed = new CompressedReader(compressedFile, geometry.clusterSize, control, codec);
    this.#reader = new Reader(this.#context, compressed);
    this.#writer = new Writer(this.#context, this.#reader);
    this.#zeroing = new Zeroing(this.#context, this.#reader, this.#writer);
    this.#preallocating = new Preallocating(this.#context);
    this.#compressedWriter = new CompressedWriter(this.#context, this.#writer, codec);
    this.#reads = new RequestPool(counters, (epoch) => {
      this.#gate.leave(epoch);
    });
    const writeEnded = (epoch: number): void => {
      unflushed.note();
      this.#gate.leave(epoch);
    };
    // The long way looks for space that is still in limbo.
    const again: WriteAgain = (error, buffer, length, offset) =>
      this.#hasSpaceFor(error, 1)
        ? this.#write(buffer, length, asGuestOffset(offset), gateClosed)
        : undefined;
    this.#writes = new RequestPool(counters, writeEnded, again);
    this.#allocatingWrites = new AllocatingWrites(this.#context, writeEnded, again);
  }

  read(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    const epoch = this.#gate.tryEnter();
    if (epoch !== gateClosed) {
      try {
        const hostOffset = this.#reader.locate(offset, buffer.length);
        if (hostOffset >= 0) {
          const { payload } = this.#context;
          return this.#reads.submitRead(payload, buffer, hostOffset, epoch, offset);
        }
      } catch (error) {
        return this.#refused(epoch, error as Error);
      }
    }
    return this.#read(buffer, offset, epoch);
  }

  write(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    if (this.#hasParts(offset, buffer.length)) return this.#writeWithin(buffer, offset);
    const epoch = this.#gate.tryEnter();
    const { corruptMark } = this.#context.metadata;
    if (epoch !== gateClosed && this.#changed && !corruptMark.isSet) {
      this.#note(offset, buffer.length);
      try {
        const hostOffset = this.#writer.locate(offset, buffer.length);
        if (hostOffset >= 0) {
          const { payload } = this.#context;
          return this.#writes.submitWrite(payload, buffer, hostOffset, epoch, offset);
        }
        const allocating = this.#allocatingWrites.tryWrite(buffer, offset, epoch);
        if (allocating !== undefined) return allocating;
      } catch (error) {
        return this.#refused(epoch, error as Error);
      }
    }
    return this.#write(buffer, buffer.length, offset, epoch);
  }

  readVector(
    buffers: readonly Uint8Array[],
    length: number,
    offset: GuestOffset,
  ): Promise<void> | undefined {
    return this.#inOnePiece(
      () => this.#reader.locate(offset, length),
      (hostOffset) => this.#context.payload.readVector(buffers, offset, hostOffset),
    );
  }

  writeVector(
    buffers: readonly Uint8Array[],
    length: number,
    offset: GuestOffset,
  ): Promise<void> | undefined {
    const { metadata, payload, unflushed } = this.#context;
    if (!this.#changed || metadata.corruptMark.isSet) return undefined;
    if (this.#hasParts(offset, length)) return undefined;
    return this.#inOnePiece(
      () => this.#writer.locate(offset, length),
      async (hostOffset) => {
        this.#note(offset, length);
        await payload.writeVector(buffers, offset, hostOffset);
        unflushed.note();
      },
    );
  }

  writeZeroes(offset: GuestOffset, length: number, unmap: boolean): Promise<void> {
    if (this.#hasParts(offset, length)) return this.#zeroWithin(offset, length, unmap);
    return this.#runRecorded(this.#gate.tryEnter(), offset, length, () =>
      this.#zeroing.writeZeroes(offset, length, unmap),
    );
  }

  discard(offset: GuestOffset, length: number): Promise<void> {
    return this.#runRecorded(this.#gate.tryEnter(), offset, length, () =>
      this.#zeroing.discard(offset, length),
    );
  }

  async readVmState(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    await this.#context.file.events?.hear('vmstate_load');
    await this.#read(buffer, offset, this.#gate.tryEnter());
  }

  /** No bitmap tells of it. */
  async writeVmState(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    await this.#context.file.events?.hear('vmstate_save');
    const { length } = buffer;
    const hasParts = this.#hasParts(offset, length);
    const write = (): Promise<void> => {
      const bytes = this.#whole(buffer, length);
      return hasParts ? this.#writeParts(bytes, offset) : this.#writer.write(bytes, offset);
    };
    await this.#gate.beside(() => this.#change(gateClosed, write, hasParts));
  }

  forget(offset: GuestOffset, length: number): Promise<void> {
    return this.#runChange(this.#gate.tryEnter(), () => this.#zeroing.forget(offset, length));
  }

  preallocate(offset: GuestOffset, length: number, options: PreallocateOptions): Promise<void> {
    return this.#runChange(this.#gate.tryEnter(), () =>
      this.#preallocating.run(offset, length, options),
    );
  }

  writeCompressed(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    const { length } = buffer;
    return this.#runRecorded(this.#gate.tryEnter(), offset, length, () =>
      this.#compressedWriter.write(this.#whole(buffer, length), offset),
    );
  }

  reserve(_offset: number, length: number): Promise<boolean> {
    const { arena, metadata } = this.#context;
    arena.expect(Math.ceil(length / metadata.geometry.clusterSize));
    return Promise.resolve(true);
  }

  dataCopy({ sparseSize }: FillRule): DataCopy | undefined {
    return openDataCopy(this.#context, sparseSize, (copy) =>
      this.#runChange(this.#gate.tryEnter(), copy),
    );
  }

  flush(): Promise<void> {
    return this.#gate.beside(() =>
      this.#context.counters.run(() => this.#noteCorruption(() => this.#flushAndReclaim())),
    );
  }

  settle(): Promise<void> {
    const { flushOrder } = this.#context.metadata;
    return this.#gate.beside(() => this.#noteCorruption(() => flushOrder.settle()));
  }

  async close(): Promise<void> {
    const { metadata, backing, unflushed } = this.#context;
    const active = queueWord(this.#line, QueueWord.active);
    await metadata.control.watch(active, this.#gate.idle());
    try {
      // What a poisoned or corrupt image holds in memory is not to be trusted on disk.
      if (this.#changed && !metadata.poison.isSet && !metadata.corruptMark.isSet) {
        await this.#noteCorruption(() => this.#inside(() => this.#giveBackReserved()));
      }
    } finally {
      unflushed.handOver();
      releaseQueueLine(metadata.control, this.#line);
      this.#onClosed();
      await backing?.close();
    }
  }

  /** Gives back what was reserved and never used; what waits in limbo the other queues get back. */
  async #giveBackReserved(): Promise<void> {
    const { arena, metadata } = this.#context;
    this.#compressedWriter.leave();
    const rest = arena.drain();
    if (rest !== undefined)
      await metadata.allocator.lowerAll(asClusterIndex(rest.cluster), rest.length);
  }

  /** Runs a section inside the gate, so that no exclusive operation of any thread meets it. */
  async #inside<Result>(section: () => Promise<Result>): Promise<Result> {
    const epoch = await this.#gate.enter();
    try {
      return await section();
    } finally {
      this.#gate.leave(epoch);
    }
  }

  /**
   * A buffer that had so many bytes when its request began.
   *
   * @throws ERR_COWHERD_INVALID_ARGUMENT if its memory was given away meanwhile
   */
  #whole(buffer: Uint8Array, length: number): Uint8Array {
    if (buffer.length === length) return buffer;
    throw givenAway(this.#context.file.filename);
  }

  /** Whether a range has parts of sectors that are enciphered as wholes. */
  #hasParts(offset: number, length: number): boolean {
    return !this.#context.payload.isPlain && !isWhole(offset, length);
  }

  /** Writes parts of sectors. */
  #writeWithin(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    const { length } = buffer;
    const write = (): Promise<void> => {
      this.#note(offset, length);
      return this.#writeParts(this.#whole(buffer, length), offset);
    };
    return this.#gate.beside(() => this.#change(gateClosed, write, true));
  }

  /** Writes parts of sectors with what is around them, while no queue runs another request. */
  #writeParts(buffer: Uint8Array, offset: GuestOffset): Promise<void> {
    const access = {
      read: (bytes: Uint8Array, at: number) => this.#reader.read(bytes, asGuestOffset(at)),
      write: (bytes: Uint8Array, at: number) => this.#writer.write(bytes, asGuestOffset(at)),
    };
    return writeWithin(access, buffer, offset);
  }

  async #zeroWithin(offset: GuestOffset, length: number, unmap: boolean): Promise<void> {
    for (const part of partsOf(offset, length)) {
      const at = asGuestOffset(part.offset);
      if (part.isWhole) await this.writeZeroes(at, part.length, unmap);
      else await this.#writeWithin(new Uint8Array(part.length), at);
    }
  }

  /** Writes the long way. @param length bytes that the buffer had when the write began */
  #write(buffer: Uint8Array, length: number, offset: GuestOffset, epoch: number): Promise<void> {
    return this.#runRecorded(epoch, offset, length, () =>
      this.#writer.write(this.#whole(buffer, length), offset),
    );
  }

  /** Reads the long way. */
  async #read(buffer: Uint8Array, offset: GuestOffset, epoch: number): Promise<void> {
    const { length } = buffer;
    try {
      await this.#run(epoch, () => this.#reader.read(this.#whole(buffer, length), offset));
    } catch (error) {
      this.#whole(buffer, length);
      throw error;
    }
    this.#whole(buffer, length);
  }

  /** Transfers what lies in one piece, whose slice is cached. @returns undefined if that cannot be */
  #inOnePiece(
    locate: () => HostOffset,
    transfer: (hostOffset: HostOffset) => Promise<void>,
  ): Promise<void> | undefined {
    const epoch = this.#gate.tryEnter();
    if (epoch === gateClosed) return undefined;
    try {
      const hostOffset = locate();
      if (hostOffset >= 0) return this.#run(epoch, () => transfer(hostOffset));
    } catch (error) {
      return this.#refused(epoch, error as Error);
    }
    this.#gate.leave(epoch);
    return undefined;
  }

  /** Ends a request that met a lock whose owner is gone before anything of it was under way. */
  #refused(epoch: number, error: Error): Promise<void> {
    this.#gate.leave(epoch);
    return Promise.reject(error);
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

  /** Sets the bits of a change in what persistent bitmaps record, inside the gate. */
  #note(offset: GuestOffset, length: number): void {
    this.#context.metadata.dirtyMap.note(offset, length);
  }

  /** Runs a change of what the disk holds. */
  #runRecorded(
    epoch: number,
    offset: GuestOffset,
    length: number,
    request: () => Promise<void>,
  ): Promise<void> {
    return this.#runChange(epoch, () => {
      this.#note(offset, length);
      return request();
    });
  }

  #runChange(epoch: number, request: () => Promise<void>): Promise<void> {
    return this.#gate.beside(() => this.#change(epoch, request));
  }

  /** @param isAlone whether no other request of any queue may be under way */
  async #change(epoch: number, request: () => Promise<void>, isAlone = false): Promise<void> {
    const prepared = async (): Promise<void> => {
      this.#context.metadata.corruptMark.check();
      if (!this.#changed) {
        await this.#beforeFirstChange();
        this.#changed = true;
      }
      await request();
    };
    const { counters, metadata } = this.#context;
    const run = (entered: number): Promise<void> => {
      if (!isAlone) return this.#run(entered, prepared);
      return counters.run(() => runAlone(metadata.control, () => this.#noteCorruption(prepared)));
    };
    const before = metadata.limbo.clusters;
    try {
      await run(epoch);
    } catch (error) {
      if (!this.#hasSpaceFor(error, metadata.limbo.clusters - before) || !(await this.#makeSpace()))
        throw error;
      await run(gateClosed);
    }
    await this.#emptyLimbo();
  }

  /** Gets back what waits in limbo, once that is much; meanwhile this queue removes nothing more. */
  async #emptyLimbo(): Promise<void> {
    const { metadata } = this.#context;
    const size = metadata.diskSize;
    const { limbo, geometry, flushOrder } = metadata;
    const bytes = Math.min(mostLimboBytes, size * limboShareOfDisk);
    const most = Math.max(leastLimboClusters, bytes / geometry.clusterSize);
    if (limbo.clusters <= most) return;
    if (limbo.waitsForRound(flushOrder.completed)) await this.#flushAndReclaim();
    else await this.#reclaim();
    // The oldest waits for a request that takes long; the others must not run ahead of it for ever.
    if (limbo.clusters > 2 * most) await this.#reclaimAlone();
  }

  /**
   * Whether space may be got back by which a request can succeed that failed for want of it. Where the host has no
   * room, what the request had, or this queue has reserved, is none.
   *
   * @param gaveBack how many clusters in limbo may be the request's own
   */
  #hasSpaceFor(error: unknown, gaveBack: number): boolean {
    if (!(error instanceof CowherdError) || error.code !== 'ERR_COWHERD_NO_SPACE') return false;
    const { control, limbo } = this.#context.metadata;
    const held = heldByQueues(control);
    if (error.errno === undefined) return limbo.clusters > 0 || held.length > 0;
    const reserved = reservedRest(control, this.#line)?.cluster;
    return limbo.clusters > gaveBack || held.some(({ cluster }) => cluster !== reserved);
  }

  /**
   * Gets back, while no queue runs a request, whatever nobody uses.
   *
   * @returns whether there was anything
   */
  async #makeSpace(): Promise<boolean> {
    const { control } = this.#context.metadata;
    const reclaimed = await runAlone(control, () => reclaimAll(this.#context));
    return reclaimed > 0;
  }

  async #flushAndReclaim(): Promise<void> {
    const { metadata } = this.#context;
    metadata.poison.check();
    metadata.corruptMark.check();
    await metadata.flushOrder.flush();
    if (metadata.limbo.clusters > 0) await this.#reclaim();
  }

  /** Reclaims while no queue runs a request; concurrent calls share one pass. */
  async #reclaimAlone(): Promise<void> {
    const { control } = this.#context.metadata;
    if (this.#reclaimingAlone !== undefined) {
      await this.#shared(this.#reclaimingAlone);
      return;
    }
    this.#reclaimingAlone = runAlone(control, () => reclaim(this.#context)).finally(() => {
      this.#reclaimingAlone = undefined;
    });
    await this.#reclaimingAlone;
  }

  /** Concurrent calls share one pass. */
  async #reclaim(): Promise<void> {
    if (this.#reclaiming !== undefined) {
      await this.#shared(this.#reclaiming);
      return;
    }
    this.#reclaiming = this.#inside(() => reclaim(this.#context)).finally(() => {
      this.#reclaiming = undefined;
    });
    await this.#reclaiming;
  }

  /** Waits for a pass that another request of this queue has begun. */
  #shared(pass: Promise<void>): Promise<void> {
    const { control } = this.#context.metadata;
    return control.watchdog.watch(
      pass,
      () => `clusters to be freed by ${control.nameQueue(this.#line)}`,
    );
  }
}
