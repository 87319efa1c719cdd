/**
 * A thread's way to the native I/O engine: requests collected during one tick, handed over in one
 * call, and their completions dispatched in batches.
 */
import assert from 'node:assert/strict';
import type { Addon, NativeCopyOrder, NativeRing, NativeSectorCipher } from './addon.js';
import { AddressBook, unknownAddress } from './address.js';

/** What a request does; the numbers are shared with native/request.h. */
export const Operation = {
  read: 0,
  write: 1,
  readVector: 2,
  writeVector: 3,
  flush: 4,
  truncate: 5,
  allocate: 6,
  writeZeroes: 7,
  discard: 8,
  copyRange: 9,
  close: 10,
  copyData: 11,
  compareData: 12,
  zstdCompress: 13,
  zstdDecompress: 14,
  deflate: 15,
  inflate: 16,
  inflateZlib: 17,
  encrypt: 18,
  decrypt: 19,
} as const;
/** One of the operations. */
export type Operation = (typeof Operation)[keyof typeof Operation];

/** Which engine a ring uses; the numbers are shared with native/ring.h. */
const Engine = { auto: 0, io_uring: 1, threads: 2 } as const;
/** Name of an engine. */
export type EngineName = keyof typeof Engine;

/** Who issued a request and hears of its end. */
export interface RingClient<Token> {
  /**
   * @param token what was handed in with the request
   * @param result at least 0, as the operation defines, or a negated errno
   */
  requestEnded(token: Token, result: number, operation: Operation, offset: number): void;
}

/** What the system calls an invalid argument (EINVAL). */
const invalid = -22;

const slots = 1024;
const recordFields = 8;
/**
 * Work that may be done from ticks and microtasks, in units of about 2 microseconds, before the
 * event loop gets a turn: about a millisecond's.
 */
const turnBudget = 512;
const bytesPerUnit = 16384;

/** Memory through which a ring's requests and results pass; see native/ring.h. */
interface SharedTable {
  readonly records: Float64Array;
  /** Slots to start with the next call. */
  readonly pending: Int32Array;
  /** Slots that ended, as the last call reports them. */
  readonly completed: Int32Array;
}

/** What data are made of that are copied or compared. */
export interface DataMemory {
  /**
   * Begins with the bytes of a stretch, which is what one thread deals with at a time, and with the
   * segments, three numbers each: a file, or 0 for zeroes; an offset in bytes; a length in bytes.
   */
  readonly numbers: Float64Array;
}

/** What a copy of data is made of, and where it was written. */
export interface CopyMemory extends DataMemory {
  /**
   * Index from which on it receives for each stretch, even after a failure, how many parts were written,
   * and three numbers for each, all in bytes: where it lies in the stretch, its length, its host offset.
   */
  readonly placesAt: number;
  /** Numbers for that: the same share for every stretch, with room for every part that can be. */
  readonly placesLength: number;
}

/** See the file's comment. Get one from `acquireRing`. */
export class Ring {
  readonly #native: NativeRing;
  readonly #addresses: AddressBook;
  readonly #records: Float64Array;
  readonly #pending: Int32Array;
  readonly #completed: Int32Array;
  readonly #free = new Int32Array(slots);
  readonly #clients = new Array<RingClient<unknown> | undefined>(slots).fill(undefined);
  readonly #tokens = new Array<unknown>(slots).fill(undefined);
  /** Keeps memory that the kernel or a pool thread uses from being collected. */
  readonly #buffers = new Array<unknown>(slots).fill(undefined);
  readonly #outputs = new Array<unknown>(slots).fill(undefined);
  /** Requests that found every slot taken, oldest first, from `#backlogHead` on. */
  #backlog: (() => void)[] = [];
  #backlogHead = 0;
  #admitting = false;
  #freeCount = slots;
  #pendingCount = 0;
  #scheduled = false;
  #turnUnits = 0;
  readonly #flushNow = (): void => {
    this.#flush();
  };
  readonly #flushInNewTurn = (): void => {
    this.#turnUnits = 0;
    this.#flush();
  };

  private constructor(native: NativeRing, addresses: AddressBook, shared: SharedTable) {
    this.#native = native;
    this.#addresses = addresses;
    this.#records = shared.records;
    this.#pending = shared.pending;
    this.#completed = shared.completed;
    for (let slot = 0; slot < slots; slot += 1) this.#free[slot] = slots - 1 - slot;
  }

  /** @returns a ring, or the negated errno with which the system refused one */
  static create(library: Addon, engine: EngineName): Ring | number {
    const shared = {
      records: new Float64Array(slots * recordFields),
      pending: new Int32Array(slots),
      completed: new Int32Array(slots),
    };
    let ring: Ring; // eslint-disable-line prefer-const -- the callback needs it before it exists
    const onCompletions = (count: number): void => {
      ring.#dispatchInNewTurn(count);
    };
    const native = library.createRing(
      Engine[engine],
      shared.records,
      shared.pending,
      shared.completed,
      onCompletions,
    );
    if (typeof native === 'number') return native;
    ring = new Ring(native, new AddressBook(library), shared);
    return ring;
  }

  /** Whether io_uring serves this ring. */
  get usesUring(): boolean {
    return this.#native.usesUring;
  }

  /** Address of a view's first byte. */
  addressOf(view: Uint8Array): number {
    return this.#addresses.addressOf(view);
  }

  /** A read or write of one buffer: the hot path, which allocates nothing. */
  transfer<Token>(
    client: RingClient<Token>,
    token: Token,
    operation: Operation,
    file: number,
    buffer: Uint8Array,
    offset: number,
  ): void {
    if (this.#full()) {
      const { byteLength } = buffer;
      this.#backlog.push(() => {
        // What was given away meanwhile has no bytes any more.
        if (buffer.byteLength !== byteLength) client.requestEnded(token, invalid, operation, offset);
        else this.transfer(client, token, operation, file, buffer, offset);
      });
      return;
    }
    // Before anything is taken: it refuses what is no buffer.
    let address = this.#addresses.addressUnlessNew(buffer);
    if (address === unknownAddress) {
      const nextSlot = this.#free[this.#freeCount - 1];
      address = this.#native.hold(nextSlot, buffer.buffer as ArrayBuffer) + buffer.byteOffset;
    }
    const slot = this.#take(client, token, operation, file, offset, buffer.byteLength);
    this.#buffers[slot] = buffer;
    this.#records[slot * recordFields] = address;
  }

  /** A read or write of several buffers. */
  transferVector<Token>(
    client: RingClient<Token>,
    token: Token,
    operation: Operation,
    file: number,
    buffers: readonly Uint8Array[],
    offset: number,
  ): void {
    if (this.#full()) {
      const lengths = buffers.map(({ byteLength }) => byteLength);
      this.#backlog.push(() => {
        const isWhole = buffers.every(({ byteLength }, index) => byteLength === lengths[index]);
        if (!isWhole) client.requestEnded(token, invalid, operation, offset);
        else this.transferVector(client, token, operation, file, buffers, offset);
      });
      return;
    }
    // Has the memory of each held.
    for (const buffer of buffers) this.#addresses.addressOf(buffer);
    const slot = this.#take(client, token, operation, file, offset, 0);
    this.#buffers[slot] = buffers;
    this.#records[slot * recordFields + 2] = this.#native.setVector(slot, buffers);
  }

  /**
   * Any other operation on a file.
   * @param sourceOffset where a copy begins in the file `source`
   */
  operate<Token>(
    client: RingClient<Token>,
    token: Token,
    operation: Operation,
    file: number,
    offset: number,
    length: number,
    parameter: number,
    sourceOffset = 0,
    source = 0,
  ): void {
    if (this.#full()) {
      this.#backlog.push(() => {
        this.operate(
          client,
          token,
          operation,
          file,
          offset,
          length,
          parameter,
          sourceOffset,
          source,
        );
      });
      return;
    }
    const record = this.#take(client, token, operation, file, offset, length) * recordFields;
    this.#records[record + 5] = parameter;
    this.#records[record + 6] = sourceOffset;
    this.#records[record + 7] = source;
  }

  /** A codec's run from `input` into `output`. */
  convert<Token>(
    client: RingClient<Token>,
    token: Token,
    operation: Operation,
    input: Uint8Array,
    output: Uint8Array,
    level: number,
  ): void {
    if (this.#full()) {
      this.#backlog.push(() => {
        this.convert(client, token, operation, input, output, level);
      });
      return;
    }
    const inputAddress = this.#addresses.addressOf(input);
    const outputAddress = this.#addresses.addressOf(output);
    const slot = this.#take(client, token, operation, 0, 0, input.byteLength);
    const record = slot * recordFields;
    this.#buffers[slot] = input;
    this.#outputs[slot] = output;
    this.#records[record] = inputAddress;
    this.#records[record + 5] = level;
    this.#records[record + 6] = outputAddress;
    this.#records[record + 7] = output.byteLength;
  }

  /**
   * A cipher's run over whole sectors, from `input` into `output`, which may be the same.
   *
   * @param sector number of the first
   */
  cipher<Token>(
    client: RingClient<Token>,
    token: Token,
    operation: Operation,
    cipher: NativeSectorCipher,
    input: Uint8Array,
    output: Uint8Array,
    sector: number,
  ): void {
    if (this.#full()) {
      this.#backlog.push(() => {
        this.cipher(client, token, operation, cipher, input, output, sector);
      });
      return;
    }
    const inputAddress = this.#addresses.addressOf(input);
    const outputAddress = this.#addresses.addressOf(output);
    const slot = this.#take(client, token, operation, 0, sector, input.byteLength);
    this.#native.useCipher(slot, cipher);
    const record = slot * recordFields;
    this.#buffers[slot] = input;
    this.#outputs[slot] = output;
    this.#records[record] = inputAddress;
    this.#records[record + 6] = outputAddress;
    this.#records[record + 7] = output.byteLength;
  }

  /**
   * Copies bytes of files, one segment after the other, into a file, but for blocks of zeroes: where an
   * order's granule is 0, to `offset` and what follows it; else whole granules, to the room that the
   * order was offered and nobody has taken.
   *
   * Threads share it in stretches, of which each takes its turn by itself.
   *
   * @param granularity bytes of a block; 0 if zeroes are copied like data
   */
  copyData(
    client: RingClient<undefined>,
    file: number,
    offset: number,
    length: number,
    order: NativeCopyOrder,
    memory: CopyMemory,
    granularity: number,
  ): void {
    if (this.#full()) {
      this.#backlog.push(() => {
        this.copyData(client, file, offset, length, order, memory, granularity);
      });
      return;
    }
    const { numbers, placesAt, placesLength } = memory;
    const address = this.#addresses.addressOf(numbers);
    const slot = this.#take(client, undefined, Operation.copyData, file, offset, length);
    this.#native.joinOrder(slot, order);
    const record = slot * recordFields;
    this.#buffers[slot] = numbers;
    this.#records[record] = address;
    this.#records[record + 5] = granularity;
    this.#records[record + 6] = address + placesAt * numbers.BYTES_PER_ELEMENT;
    this.#records[record + 7] = placesLength;
  }

  /**
   * Whether segments of files hold the same bytes as others: a result of 0 says that they do, 1 that they
   * do not.
   *
   * @param file any of the files
   * @param length bytes of either
   * @param othersAt index in the memory at which the others begin, in the same form
   */
  compareData(
    client: RingClient<undefined>,
    file: number,
    length: number,
    memory: DataMemory,
    othersAt: number,
  ): void {
    if (this.#full()) {
      this.#backlog.push(() => {
        this.compareData(client, file, length, memory, othersAt);
      });
      return;
    }
    const { numbers } = memory;
    const address = this.#addresses.addressOf(numbers);
    const slot = this.#take(client, undefined, Operation.compareData, file, 0, length);
    const record = slot * recordFields;
    this.#buffers[slot] = numbers;
    this.#records[record] = address;
    this.#records[record + 6] = address + othersAt * numbers.BYTES_PER_ELEMENT;
  }

  /** Gives the ring back to the system. Nothing may be under way. */
  close(): void {
    this.#native.close();
  }

  /** Whether a new request must queue: for want of a slot, or behind others that do. */
  #full(): boolean {
    return this.#freeCount === 0 || (this.#backlog.length > 0 && !this.#admitting);
  }

  #take<Token>(
    client: RingClient<Token>,
    token: Token,
    operation: Operation,
    file: number,
    offset: number,
    length: number,
  ): number {
    this.#freeCount -= 1;
    const slot = this.#free[this.#freeCount];
    const record = slot * recordFields;
    const records = this.#records;
    records[record + 1] = offset;
    records[record + 2] = length;
    records[record + 3] = operation;
    records[record + 4] = file;
    this.#clients[slot] = client;
    this.#tokens[slot] = token;
    this.#pending[this.#pendingCount] = slot;
    this.#pendingCount += 1;
    this.#turnUnits += 1 + length / bytesPerUnit;
    if (!this.#scheduled) this.#schedule();
    return slot;
  }

  #schedule(): void {
    this.#scheduled = true;
    if (this.#turnUnits > turnBudget) {
      setImmediate(this.#flushInNewTurn);
    } else {
      process.nextTick(this.#flushNow);
    }
  }

  #flush(): void {
    this.#scheduled = false;
    const count = this.#pendingCount;
    this.#pendingCount = 0;
    const completed = this.#native.submit(count);
    if (completed > 0) this.#dispatch(completed);
  }

  #dispatchInNewTurn(count: number): void {
    this.#turnUnits = 0;
    this.#dispatch(count);
  }

  #dispatch(count: number): void {
    for (let index = 0; index < count; index += 1) {
      const slot = this.#completed[index];
      const record = slot * recordFields;
      const client = this.#clients[slot]!;
      const token = this.#tokens[slot];
      const result = this.#records[record];
      const offset = this.#records[record + 1];
      const operation = this.#records[record + 3] as Operation;
      this.#clients[slot] = undefined;
      this.#tokens[slot] = undefined;
      this.#buffers[slot] = undefined;
      this.#outputs[slot] = undefined;
      assert(this.#freeCount < slots, 'a slot is given back twice');
      this.#free[this.#freeCount] = slot;
      this.#freeCount += 1;
      try {
        client.requestEnded(token, result, operation, offset);
      } catch (error) {
        // One client's mistake must not lose the others' completions.
        process.nextTick(() => {
          throw error;
        });
      }
    }
    if (this.#backlog.length > 0) this.#admit();
  }

  /** Starts what found no slot before, as far as there are slots now. */
  #admit(): void {
    this.#admitting = true;
    while (this.#freeCount > 0 && this.#backlogHead < this.#backlog.length) {
      const start = this.#backlog[this.#backlogHead];
      this.#backlogHead += 1;
      start();
    }
    this.#admitting = false;
    if (this.#backlogHead === this.#backlog.length) {
      this.#backlog = [];
      this.#backlogHead = 0;
    } else if (this.#backlogHead > slots) {
      this.#backlog = this.#backlog.slice(this.#backlogHead);
      this.#backlogHead = 0;
    }
  }
}
