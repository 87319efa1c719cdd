/**
 * Guest bytes on their way to where they are stored, and back. What a disk stores uncompressed passes here, one
 * transfer or one copy at a time; where it is encrypted that is done here, and who reads and writes does not know of
 * it. Compressed data do not pass: they are never encrypted.
 *
 * What is written is enciphered in memory of our own, so that the caller's never holds what is stored; what is read is
 * deciphered where it was read to, before the request ends.
 */
import { preallocate } from '../../storage/preallocate.js';
import type { Preallocation } from '../create-options.js';
import assert from 'node:assert/strict';
import type { TransferTarget } from '../../engine/queues/request-pool.js';
import { givenAway } from '../../errors.js';
import { cipherSectorBytes } from '../../native/sector-cipher.js';
import type { Completion, CopyRule, DataCopier, StorageFile } from '../../storage/storage.js';
import { gather, scatter, totalLength } from '../../storage/vector.js';
import type { PayloadCipher } from './disk-key.js';
import { SpareBuffers } from './spare-buffers.js';

/**
 * One queue's way to the guest data of an image. Offsets are in bytes; a format that tells those of its disk from those
 * of its file by their types says so.
 */
export class Payload<
  Guest extends number = number,
  Host extends number = number,
> implements TransferTarget {
  readonly #file: StorageFile;
  readonly #first: number;
  readonly #cipher: PayloadCipher | undefined;
  readonly #spare = new SpareBuffers();

  /**
   * @param file where uncompressed guest data lie, through the queue's ring
   * @param first where in it the first may lie, in bytes: behind a header, if it has one
   * @param cipher left out, bytes are stored as they are
   */
  constructor(file: StorageFile, first: number, cipher?: PayloadCipher) {
    this.#file = file;
    this.#first = first;
    this.#cipher = cipher;
  }

  /** Whether bytes are stored as they are: zeroes as zeroes, and what the host copies as it was read. */
  get isPlain(): boolean {
    return this.#cipher === undefined;
  }

  /** Fills the buffer. */
  read(buffer: Uint8Array, guestOffset: Guest, hostOffset: Host): Promise<void> {
    if (this.#cipher === undefined) return this.#file.read(buffer, hostOffset);
    return this.#readEncrypted(this.#cipher, buffer, guestOffset, hostOffset);
  }

  /** Writes the whole buffer. */
  write(buffer: Uint8Array, guestOffset: Guest, hostOffset: Host): Promise<void> {
    this.#checkPlace(hostOffset);
    if (this.#cipher === undefined) return this.#file.write(buffer, hostOffset);
    return this.#writeEncrypted(this.#cipher, [buffer], guestOffset, hostOffset);
  }

  /** Fills buffers one after the other by one request. */
  async readVector(
    buffers: readonly Uint8Array[],
    guestOffset: Guest,
    hostOffset: Host,
  ): Promise<void> {
    if (this.#cipher === undefined) {
      await this.#file.readVector(buffers, hostOffset);
      return;
    }
    // A cipher's sectors do not end where the buffers do.
    const whole = new Uint8Array(totalLength(buffers));
    await this.read(whole, guestOffset, hostOffset);
    scatter(whole, buffers);
  }

  /** Writes buffers one after the other as one request. */
  writeVector(buffers: readonly Uint8Array[], guestOffset: Guest, hostOffset: Host): Promise<void> {
    if (buffers.length === 1) return this.write(buffers[0], guestOffset, hostOffset);
    this.#checkPlace(hostOffset);
    if (this.#cipher === undefined) return this.#file.writeVector(buffers, hostOffset);
    return this.#writeEncrypted(this.#cipher, buffers, guestOffset, hostOffset);
  }

  /** Starts filling the buffer; plain bytes cost nothing but the file's own request. */
  submitRead(
    buffer: Uint8Array,
    hostOffset: Host,
    completion: Completion,
    guestOffset: Guest,
  ): void {
    if (this.#cipher === undefined) {
      this.#file.submitRead(buffer, hostOffset, completion);
    } else if (isWhole(hostOffset, buffer.length)) {
      const sector = sectorOf(this.#cipher, guestOffset, hostOffset);
      const decipher = new Deciphering(
        this.#file.filename,
        this.#cipher,
        buffer,
        sector,
        completion,
      );
      this.#file.submitRead(buffer, hostOffset, decipher);
    } else {
      completes(this.read(buffer, guestOffset, hostOffset), completion);
    }
  }

  /** Starts writing the whole buffer; plain bytes cost nothing but the file's own request. */
  submitWrite(
    buffer: Uint8Array,
    hostOffset: Host,
    completion: Completion,
    guestOffset: Guest,
  ): void {
    this.#checkPlace(hostOffset);
    if (this.#cipher === undefined) {
      this.#file.submitWrite(buffer, hostOffset, completion);
      return;
    }
    assert(isWhole(hostOffset, buffer.length), 'a part of a sector is to be encrypted');
    const lent = this.#spare.lend(buffer.length);
    const bytes = lent.subarray(0, buffer.length);
    const returning = new Returning(this.#spare, lent, completion);
    const sector = sectorOf(this.#cipher, guestOffset, hostOffset);
    const under = this.#cipher.cipher.encrypt(buffer, bytes, sector);
    if (under === undefined) {
      this.#file.submitWrite(bytes, hostOffset, returning);
      return;
    }
    under.then(
      () => {
        this.#file.submitWrite(bytes, hostOffset, returning);
      },
      (error: unknown) => {
        returning.complete(error as Error);
      },
    );
  }

  /** Makes stored bytes zeroes, in a file that is to be read as the disk itself. */
  writeZeroes(hostOffset: Host, length: number, unmap: boolean): Promise<void> {
    assert(this.isPlain, 'a file that is encrypted is to be read as the disk itself');
    return this.#file.writeZeroes(hostOffset, length, unmap);
  }

  /**
   * Gives room that nothing is stored in yet its blocks, as zeroes of the file, which are noise once deciphered.
   *
   * @throws the signal's reason if it says so
   */
  async preallocate(
    hostOffset: Host,
    length: number,
    mode: Exclude<Preallocation, 'off'>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    this.#checkPlace(hostOffset);
    // What was there before is not to show.
    await this.#file.writeZeroes(hostOffset, length, mode === 'metadata');
    if (mode === 'full') await preallocate(this.#file, hostOffset, length, mode, signal);
  }

  /** Tells the host that stored bytes are no longer wanted. */
  discard(hostOffset: Host, length: number): Promise<boolean> {
    return this.#file.discard(hostOffset, length);
  }

  /** The host's own way of copying into the file, for plain bytes. */
  dataCopier(rule: CopyRule): DataCopier {
    assert(this.isPlain, 'the host copies what is to be encrypted');
    return this.#file.dataCopier(rule);
  }

  #checkPlace(hostOffset: Host): void {
    assert(hostOffset >= this.#first, 'guest data would be written over the header');
  }

  async #readEncrypted(
    payload: PayloadCipher,
    buffer: Uint8Array,
    guestOffset: Guest,
    hostOffset: Host,
  ): Promise<void> {
    const { length } = buffer;
    const skipped = hostOffset % cipherSectorBytes;
    const wanted = Math.ceil((skipped + length) / cipherSectorBytes) * cipherSectorBytes;
    const sector = sectorOf(payload, guestOffset, hostOffset);
    if (wanted === length) {
      await this.#file.read(buffer, hostOffset);
      if (buffer.length !== length) throw givenAway(this.#file.filename);
      await payload.cipher.decrypt(buffer, sector);
      return;
    }
    const lent = this.#spare.lend(wanted);
    try {
      const whole = lent.subarray(0, wanted);
      await this.#file.read(whole, hostOffset - skipped);
      await payload.cipher.decrypt(whole, sector);
      if (buffer.length !== length) throw givenAway(this.#file.filename);
      buffer.set(whole.subarray(skipped, skipped + length));
    } finally {
      this.#spare.giveBack(lent);
    }
  }

  async #writeEncrypted(
    { cipher, numbers }: PayloadCipher,
    buffers: readonly Uint8Array[],
    guestOffset: Guest,
    hostOffset: Host,
  ): Promise<void> {
    const length = totalLength(buffers);
    assert(isWhole(hostOffset, length), 'a part of a sector is to be encrypted');
    const lent = this.#spare.lend(length);
    try {
      const bytes = lent.subarray(0, length);
      const [first] = buffers;
      if (buffers.length > 1) gather(buffers, bytes);
      const input = buffers.length > 1 ? bytes : first;
      await cipher.encrypt(input, bytes, sectorOf({ numbers }, guestOffset, hostOffset));
      await this.#file.write(bytes, hostOffset);
    } finally {
      this.#spare.giveBack(lent);
    }
  }
}

/** The number of the sector that an offset lies in. */
function sectorOf(
  { numbers }: Pick<PayloadCipher, 'numbers'>,
  guestOffset: number,
  hostOffset: number,
): number {
  return Math.floor((numbers === 'guest' ? guestOffset : hostOffset) / cipherSectorBytes);
}

/** Whether a range is one of whole sectors. */
export function isWhole(offset: number, length: number): boolean {
  return offset % cipherSectorBytes === 0 && length % cipherSectorBytes === 0;
}

/** Deciphers what was read before a request ends. */
class Deciphering implements Completion {
  readonly #length: number;

  constructor(
    private readonly filename: string,
    private readonly payload: PayloadCipher,
    private readonly buffer: Uint8Array,
    private readonly sector: number,
    private readonly completion: Completion,
  ) {
    this.#length = buffer.length;
  }

  complete(error: Error | null): void {
    const { buffer, completion, payload } = this;
    if (error !== null) {
      completion.complete(error);
    } else if (buffer.length !== this.#length) {
      completion.complete(givenAway(this.filename));
    } else {
      const under = payload.cipher.decrypt(buffer, this.sector);
      if (under === undefined) completion.complete(null);
      else completes(under, completion);
    }
  }
}

/** Gives a buffer back before a request ends. */
class Returning implements Completion {
  constructor(
    private readonly spare: SpareBuffers,
    private readonly lent: Uint8Array,
    private readonly completion: Completion,
  ) {}

  complete(error: Error | null): void {
    this.spare.giveBack(this.lent);
    this.completion.complete(error);
  }
}

function completes(work: Promise<void>, completion: Completion): void {
  work.then(
    () => {
      completion.complete(null);
    },
    (error: unknown) => {
      completion.complete(error as Error);
    },
  );
}
