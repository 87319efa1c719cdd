/**
 * A queue that writes to an image of a mapping: data go where their blocks lie, and blocks that have no
 * place get one, with what is around the data as it reads. An entry is linked once its data are written.
 */
import { Mutex } from 'async-mutex';
import type { QueueCounters } from '../../engine/queues/counters.js';
import type { Node } from '../../engine/queues/node.js';
import { type CowherdError, problemWith } from '../../errors.js';
import type { BackingReader, ImageFiles } from '../driver.js';
import { damagedImage } from '../failures.js';
import { MappedQueue } from './mapped-queue.js';
import type { BlockRun, GrowingMapping, Place } from './mapping.js';

/** Blocks that get a place at once at most. */
const mostBlocks = 256;
/** Bytes of zeroes that are written at once at most. */
const zeroBytes = 1024 * 1024;

/** What the queues of one image share. */
export class Growth {
  /** Blocks that are getting a place, and when they have it. */
  readonly #claims = new Map<number, Promise<void>>();
  readonly #allocating = new Mutex();
  readonly #flushing = new Mutex();
  /** Of flushing, if it has not begun. */
  #nextRound: Promise<void> | undefined;
  #renewed: Promise<void> | undefined;

  constructor(readonly mapping: GrowingMapping) {}

  /** To be awaited before the disk is changed: images above know by it that this one has. */
  renewIdentity(): Promise<void> {
    this.#renewed ??= this.#renew();
    return this.#renewed;
  }

  async #renew(): Promise<void> {
    try {
      await this.mapping.renewIdentity?.();
    } catch (error) {
      this.#renewed = undefined;
      throw error;
    }
  }

  /** What to wait for before blocks can be claimed, if any of them is. */
  claimOf(block: number, count: number): Promise<void> | undefined {
    for (let index = block; index < block + count; index++) {
      const claim = this.#claims.get(index);
      if (claim !== undefined) return claim;
    }
    return undefined;
  }

  /** Claims blocks for as long as work on them lasts. */
  async claim<Result>(block: number, count: number, work: () => Promise<Result>): Promise<Result> {
    let end = (): void => undefined;
    const claim = new Promise<void>((resolve) => {
      end = resolve;
    });
    for (let index = block; index < block + count; index++) this.#claims.set(index, claim);
    try {
      return await work();
    } finally {
      for (let index = block; index < block + count; index++) this.#claims.delete(index);
      end();
    }
  }

  /** Takes places, one after the other in the order of the calls. */
  allocate(block: number, count: number): Promise<BlockRun> {
    return this.#allocating.runExclusive(() => this.mapping.allocate(block, count));
  }

  /** Makes durable what was written before, and then how it is found. */
  flush(files: ImageFiles): Promise<void> {
    // One round at a time: whoever waits for the next one is served by it together.
    this.#nextRound ??= this.#flushing.runExclusive(() => {
      this.#nextRound = undefined;
      return this.#flushRound(files);
    });
    return this.#nextRound;
  }

  /** What is linked during the round is for the next one: its data may be written after the barrier. */
  async #flushRound(files: ImageFiles): Promise<void> {
    const changes = this.mapping.takeChanges();
    let isDurable = false;
    try {
      if (changes !== undefined) await this.mapping.announce?.();
      for (const file of files) await file.flush();
      if (changes !== undefined) {
        await changes.write();
        for (const file of files) await file.flush();
      }
      isDurable = true;
    } finally {
      changes?.end(isDurable);
    }
  }
}

/** Blocks that just got their place. */
interface NewBlocks {
  readonly first: number;
  readonly run: BlockRun;
  /** Whether they read as what is below until then, rather than as zeroes. */
  readonly showsBelow: boolean;
}

/** See the file's comment. */
export class GrowingQueue extends MappedQueue {
  readonly #growth: Growth;
  readonly #node: Node;
  /** Of the files in bytes, as they were when they were last asked; they only grow. */
  readonly #lengths: number[] = [];

  constructor(
    format: string,
    growth: Growth,
    files: ImageFiles,
    backing: BackingReader | undefined,
    node: Node,
    counters: QueueCounters,
  ) {
    super(format, growth.mapping, files, backing, node, counters);
    this.#growth = growth;
    this.#node = node;
  }

  override write(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#change(() => this.#write(buffer, offset));
  }

  override writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    return this.#change(() => this.#writeZeroes(offset, length, unmap));
  }

  /** The formats have no way to give space back that others would understand. */
  override discard(): Promise<void> {
    return Promise.resolve();
  }

  override writeCompressed(buffer: Uint8Array, offset: number): Promise<void> {
    const { mapping } = this.#growth;
    if (mapping.writeCompressed === undefined) return super.writeCompressed();
    const block = offset / mapping.blockSize;
    return this.#change(async () => {
      for (;;) {
        const claim = this.#growth.claimOf(block, 1);
        if (claim === undefined) break;
        await claim;
      }
      await this.#growth.claim(block, 1, async () => {
        const place = await mapping.find(offset, buffer.length);
        if (place.kind === 'data' || place.kind === 'compressed') throw this.#alreadyThere(offset);
        await mapping.writeCompressed?.(block, buffer);
      });
    });
  }

  override flush(): Promise<void> {
    return this.run(() => this.#growth.flush(this.files));
  }

  /** Runs a request that changes the disk. */
  #change(request: () => Promise<void>): Promise<void> {
    return this.run(async () => {
      await this.#growth.renewIdentity();
      await request();
    });
  }

  async #write(buffer: Uint8Array, offset: number): Promise<void> {
    const { mapping } = this.#growth;
    const writes: Promise<void>[] = [];
    try {
      for (let done = 0; done < buffer.length;) {
        const left = buffer.length - done;
        const place = await mapping.find(offset + done, left);
        if (place.kind === 'compressed') throw this.#alreadyThere(offset + done);
        if (place.kind !== 'data') {
          const part = buffer.subarray(done, done + place.length);
          done += await this.#grow(part, offset + done, place.kind === 'unallocated');
          continue;
        }
        await this.#refuseBeyondEnd(place, offset + done);
        const part = buffer.subarray(done, done + place.length);
        const writing = this.files[place.file].write(part, place.offset);
        // Its failure is met below, after all of them have ended: the buffer is theirs until then.
        writing.catch(() => undefined);
        writes.push(writing);
        done += place.length;
      }
    } finally {
      await Promise.allSettled(writes);
    }
    await Promise.all(writes);
  }

  /**
   * Writes data whose blocks have no place yet.
   *
   * @param showsBelow whether the blocks read as what is below, rather than as zeroes
   * @returns bytes that were written; none where somebody else was about to give the block a place
   */
  async #grow(part: Uint8Array, offset: number, showsBelow: boolean): Promise<number> {
    const { blockSize } = this.#growth.mapping;
    const first = Math.floor(offset / blockSize);
    const end = Math.ceil((offset + part.length) / blockSize);
    const wanted = Math.min(end - first, mostBlocks);
    const claim = this.#growth.claimOf(first, wanted);
    if (claim !== undefined) {
      await claim;
      return 0;
    }
    return await this.#growth.claim(first, wanted, async () => {
      const run = await this.#growth.allocate(first, wanted);
      const stop = Math.min((first + run.count) * blockSize - offset, part.length);
      try {
        await this.#fill(part.subarray(0, stop), offset, { first, run, showsBelow });
      } catch (error) {
        this.#growth.mapping.release?.(run);
        throw error;
      }
      await this.#growth.mapping.link(first, run);
      return stop;
    });
  }

  /** Writes data to blocks that just got their place, and around them what they read as. */
  async #fill(
    part: Uint8Array,
    offset: number,
    { first, run, showsBelow }: NewBlocks,
  ): Promise<void> {
    const file = this.files[run.file ?? 0];
    const { blockSize } = this.#growth.mapping;
    const blocksAt = first * blockSize;
    const isZero = file.limits.zeroInit && run.isReused !== true;
    const head = await this.#surroundings(blocksAt, offset, showsBelow, isZero);
    const tailEnd = blocksAt + run.count * blockSize;
    const tail = await this.#surroundings(offset + part.length, tailEnd, showsBelow, isZero);
    const at = run.hostOffset + (head === undefined ? offset - blocksAt : 0);
    const pieces = [head, part, tail].filter((piece) => piece !== undefined);
    await file.writeVector(pieces, at);
  }

  /**
   * What a part of new blocks has to hold; undefined where what is there is right already.
   *
   * @param isZero whether there are zeroes
   */
  async #surroundings(
    start: number,
    end: number,
    showsBelow: boolean,
    isZero: boolean,
  ): Promise<Uint8Array | undefined> {
    if (start >= end) return undefined;
    const below = showsBelow ? (this.backing?.size ?? 0) : 0;
    const shown = Math.max(0, Math.min(end, this.#node.size, below) - start);
    if (shown === 0 && isZero) return undefined;
    const bytes = new Uint8Array(end - start);
    if (shown > 0) await this.backing?.read(bytes.subarray(0, shown), start);
    return bytes;
  }

  async #writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    const { mapping } = this.#growth;
    const end = offset + length;
    for (let at = offset; at < end;) {
      const place = await mapping.find(at, end - at);
      const stop = at + place.length;
      if (place.kind === 'data') {
        await this.#refuseBeyondEnd(place, at);
        await this.files[place.file].writeZeroes(place.offset, place.length, unmap);
      } else if (place.kind !== 'zero' && at < (this.backing?.size ?? 0)) {
        at = await this.#coverBelow(at, stop);
        continue;
      }
      at = stop;
    }
  }

  /**
   * A table that is damaged, or hostile, must not make the file as long as it says. Within a block the file
   * may end: other programs write no more of the last one than the disk has.
   *
   * @throws ERR_COWHERD_CORRUPT
   */
  async #refuseBeyondEnd(
    { file: number, offset, length }: Extract<Place, { readonly kind: 'data' }>,
    guestOffset: number,
  ): Promise<void> {
    const room = this.#growth.mapping.blockSize;
    const end = offset + length;
    if (end <= (this.#lengths[number] ?? 0) + room) return;
    const file = this.files[number];
    this.#lengths[number] = await file.size();
    if (end <= this.#lengths[number] + room) return;
    const why = `the data of guest offset ${guestOffset} lie beyond the end of the file`;
    throw damagedImage(file.filename, why, offset);
  }

  /** Makes zeroes of what the image below shows. @returns how far that is done */
  async #coverBelow(start: number, end: number): Promise<number> {
    const { mapping } = this.#growth;
    const { blockSize } = mapping;
    const first = Math.ceil(start / blockSize);
    const isLast = end === this.#node.size;
    const stop = isLast ? Math.ceil(end / blockSize) : Math.floor(end / blockSize);
    if (mapping.linkZeroes !== undefined && first * blockSize === start && stop > first) {
      const count = Math.min(stop - first, mostBlocks);
      const claim = this.#growth.claimOf(first, count);
      if (claim !== undefined) {
        await claim;
        return start;
      }
      await this.#growth.claim(first, count, () => mapping.linkZeroes!(first, count));
      return Math.min(end, (first + count) * blockSize);
    }
    const edge = Math.min(end, (Math.floor(start / blockSize) + 1) * blockSize, start + zeroBytes);
    await this.#write(new Uint8Array(edge - start), start);
    return edge;
  }

  #alreadyThere(offset: number): CowherdError {
    const { filename } = this.files[0];
    return problemWith(
      'ERR_COWHERD_UNSUPPORTED',
      filename,
      'what is stored compressed cannot be written again',
      { offset },
    );
  }
}
