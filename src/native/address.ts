/**
 * Addresses of buffers, remembered per underlying memory: asking the addon anew for every request
 * would cost more than the request's own bookkeeping.
 */
import type { Addon } from './addon.js';

/** Finds the address of a view's first byte. One instance a thread. */
export class AddressBook {
  readonly #addon: Addon;
  readonly #bases = new WeakMap<ArrayBufferLike, number>();
  #lastBuffer: ArrayBufferLike | undefined;
  #lastBase = 0;

  constructor(addon: Addon) {
    this.#addon = addon;
  }

  /**
   * Address of the view's first byte. It stays valid while the buffer is neither collected nor
   * transferred; a transferred buffer leaves views of length zero, for which nothing is accessed.
   */
  addressOf(view: Uint8Array): number {
    const buffer = view.buffer;
    if (buffer !== this.#lastBuffer) {
      let base = this.#bases.get(buffer);
      if (base === undefined) {
        base = this.#addon.addressOf(view) - view.byteOffset;
        // An empty buffer has no memory yet, nor does one that has been transferred.
        if (view.byteLength === 0) return 0;
        this.#bases.set(buffer, base);
      }
      this.#lastBuffer = buffer;
      this.#lastBase = base;
    }
    return this.#lastBase + view.byteOffset;
  }
}
