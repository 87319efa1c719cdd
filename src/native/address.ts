/**
 * Addresses of buffers, remembered per underlying memory: asking the addon anew for every request
 * would cost more than the request's own bookkeeping. With its address the memory itself is held, as
 * long as the ArrayBuffer lives: one that is transferred while a request is under way leaves the
 * kernel, or a thread of ours, with memory that nobody has freed.
 */
import { types } from 'node:util';
import type { Addon } from './addon.js';

interface KnownMemory {
  readonly base: number;
  /** What keeps memory alive that could be given away; shared memory cannot. */
  readonly holder: object | undefined;
}

/** Finds the address of a view's first byte. One instance a thread. */
export class AddressBook {
  readonly #addon: Addon;
  readonly #known = new WeakMap<ArrayBufferLike, KnownMemory>();
  #lastBuffer: ArrayBufferLike | undefined;
  #lastBase = 0;

  constructor(addon: Addon) {
    this.#addon = addon;
  }

  /** Address of the view's first byte, valid as long as the buffer is not collected. */
  addressOf(view: Uint8Array): number {
    const buffer = view.buffer;
    if (buffer !== this.#lastBuffer) {
      let known = this.#known.get(buffer);
      if (known === undefined) {
        // An empty buffer has no memory yet, nor does one that has been transferred.
        if (view.byteLength === 0) return 0;
        const base = this.#addon.addressOf(view) - view.byteOffset;
        const isShared = types.isSharedArrayBuffer(buffer);
        known = { base, holder: isShared ? undefined : this.#addon.holdMemory(buffer) };
        this.#known.set(buffer, known);
      }
      this.#lastBuffer = buffer;
      this.#lastBase = known.base;
    }
    return this.#lastBase + view.byteOffset;
  }
}
