/** What comes out of a decoder of literals and copies: bytes in a room of a given length. */

/** Data that are no LZFSE. */
export class LzfseError extends Error {}

/** See the file's comment. */
export class LzOutput {
  readonly #room: Uint8Array;
  #length = 0;

  constructor(room: Uint8Array) {
    this.#room = room;
  }

  /** Bytes that came out. */
  get length(): number {
    return this.#length;
  }

  /** @throws LzfseError if there is no room for them */
  write(bytes: Uint8Array): void {
    this.#need(bytes.length);
    this.#room.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /**
   * Repeats what came out before.
   *
   * @param distance bytes back to where it begins; it may reach into what is being repeated
   * @throws LzfseError if there is no room, or nothing so far back
   */
  copy(distance: number, length: number): void {
    if (length === 0) return;
    this.#need(length);
    if (distance <= 0 || distance > this.#length)
      throw new LzfseError('a copy of what is not there');
    const end = this.#length + length;
    if (distance >= length) {
      this.#room.copyWithin(this.#length, this.#length - distance, end - distance);
    } else {
      for (let at = this.#length; at < end; at += 1) this.#room[at] = this.#room[at - distance];
    }
    this.#length = end;
  }

  #need(bytes: number): void {
    if (bytes > this.#room.length - this.#length)
      throw new LzfseError('there is more than expected');
  }
}
