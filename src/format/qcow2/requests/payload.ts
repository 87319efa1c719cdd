/**
 * Guest bytes on their way to host clusters and back. Whatever the disk stores uncompressed passes here,
 * one transfer or one copy at a time; so what is done to bytes on that way (specification, "Data
 * encryption") is done here, and who reads and writes does not know of it. Compressed data do not pass:
 * they are never encrypted.
 */
import assert from 'node:assert/strict';
import type { TransferTarget } from '../../../engine/queues/request-pool.js';
import type { Completion, CopyRule, DataCopier, StorageFile } from '../../../storage/storage.js';
import { scatter, totalLength } from '../../../storage/vector.js';
import type { GuestOffset, HostOffset } from '../layout/geometry.js';

/**
 * What is done to guest bytes on their way: encryption. It may go by where they lie on the disk, or in
 * the file, or both: AES of old goes by guest sectors, LUKS by host sectors. Ranges are as requests have
 * them; offsets are in bytes.
 */
export interface PayloadTransform {
  /** The bytes to be stored; those given stay as they are, and are looked at before the first wait. */
  encode(bytes: Uint8Array, guestOffset: GuestOffset, hostOffset: HostOffset): Promise<Uint8Array>;
  /** Turns stored bytes into what the guest wrote, in place. */
  decode(bytes: Uint8Array, guestOffset: GuestOffset, hostOffset: HostOffset): Promise<void>;
}

/** One queue's way to the guest data of an image. Offsets are in bytes. */
export class Payload implements TransferTarget {
  readonly #file: StorageFile;
  readonly #first: number;
  readonly #transform: PayloadTransform | undefined;

  /**
   * @param file where uncompressed guest data lie, through the queue's ring
   * @param first where in it the first may lie, in bytes: behind the header's cluster, if it has one
   * @param transform left out, bytes are stored as they are
   */
  constructor(file: StorageFile, first: number, transform?: PayloadTransform) {
    this.#file = file;
    this.#first = first;
    this.#transform = transform;
  }

  /** Whether bytes are stored as they are: zeroes as zeroes, and what the host copies as it was read. */
  get isPlain(): boolean {
    return this.#transform === undefined;
  }

  /** Fills the buffer. */
  read(buffer: Uint8Array, guestOffset: GuestOffset, hostOffset: HostOffset): Promise<void> {
    if (this.#transform === undefined) return this.#file.read(buffer, hostOffset);
    return this.#readEncoded(this.#transform, buffer, guestOffset, hostOffset);
  }

  /** Writes the whole buffer. */
  write(buffer: Uint8Array, guestOffset: GuestOffset, hostOffset: HostOffset): Promise<void> {
    this.#checkPlace(hostOffset);
    if (this.#transform === undefined) return this.#file.write(buffer, hostOffset);
    return this.#writeEncoded(this.#transform, buffer, guestOffset, hostOffset);
  }

  /** Fills buffers one after the other by one request. */
  async readVector(
    buffers: readonly Uint8Array[],
    guestOffset: GuestOffset,
    hostOffset: HostOffset,
  ): Promise<void> {
    if (this.#transform === undefined) {
      await this.#file.readVector(buffers, hostOffset);
      return;
    }
    // A cipher's sectors do not end where the buffers do.
    const whole = new Uint8Array(totalLength(buffers));
    await this.read(whole, guestOffset, hostOffset);
    scatter(whole, buffers);
  }

  /** Writes buffers one after the other as one request. */
  writeVector(
    buffers: readonly Uint8Array[],
    guestOffset: GuestOffset,
    hostOffset: HostOffset,
  ): Promise<void> {
    if (buffers.length === 1) return this.write(buffers[0], guestOffset, hostOffset);
    this.#checkPlace(hostOffset);
    if (this.#transform === undefined) return this.#file.writeVector(buffers, hostOffset);
    // A cipher's sectors do not end where the pieces do.
    return this.write(Buffer.concat(buffers), guestOffset, hostOffset);
  }

  /** Starts filling the buffer; plain bytes cost nothing but the file's own request. */
  submitRead(
    buffer: Uint8Array,
    hostOffset: HostOffset,
    completion: Completion,
    guestOffset: GuestOffset,
  ): void {
    if (this.#transform === undefined) this.#file.submitRead(buffer, hostOffset, completion);
    else completes(this.read(buffer, guestOffset, hostOffset), completion);
  }

  /** Starts writing the whole buffer; plain bytes cost nothing but the file's own request. */
  submitWrite(
    buffer: Uint8Array,
    hostOffset: HostOffset,
    completion: Completion,
    guestOffset: GuestOffset,
  ): void {
    this.#checkPlace(hostOffset);
    if (this.#transform === undefined) this.#file.submitWrite(buffer, hostOffset, completion);
    else completes(this.write(buffer, guestOffset, hostOffset), completion);
  }

  /** Makes stored bytes zeroes, in a file that is to be read as the disk itself. */
  writeZeroes(hostOffset: HostOffset, length: number, unmap: boolean): Promise<void> {
    assert(this.isPlain, 'a file that is encrypted is to be read as the disk itself');
    return this.#file.writeZeroes(hostOffset, length, unmap);
  }

  /** Tells the host that stored bytes are no longer wanted. */
  discard(hostOffset: HostOffset, length: number): Promise<boolean> {
    return this.#file.discard(hostOffset, length);
  }

  /** The host's own way of copying into the file, for plain bytes. */
  dataCopier(rule: CopyRule): DataCopier {
    assert(this.isPlain, 'the host copies what is to be encrypted');
    return this.#file.dataCopier(rule);
  }

  #checkPlace(hostOffset: HostOffset): void {
    assert(hostOffset >= this.#first, 'guest data would be written over the header');
  }

  async #readEncoded(
    transform: PayloadTransform,
    buffer: Uint8Array,
    guestOffset: GuestOffset,
    hostOffset: HostOffset,
  ): Promise<void> {
    await this.#file.read(buffer, hostOffset);
    await transform.decode(buffer, guestOffset, hostOffset);
  }

  async #writeEncoded(
    transform: PayloadTransform,
    buffer: Uint8Array,
    guestOffset: GuestOffset,
    hostOffset: HostOffset,
  ): Promise<void> {
    await this.#file.write(await transform.encode(buffer, guestOffset, hostOffset), hostOffset);
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
