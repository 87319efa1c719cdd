/**
 * Addresses of buffers, remembered per underlying memory: asking the addon anew for every request
 * would cost more than the request's own bookkeeping. With its address the memory itself is held, as
 * long as the ArrayBuffer lives, or by a request for its time: one that is transferred while a request
 * is under way leaves the kernel, or a thread of ours, with memory that nobody has freed.
 */
import { types } from 'node:util';
import type { Addon } from './addon.js';

interface KnownMemory {
  readonly base: number;
  /** What keeps memory alive that could be given away; shared memory cannot. */
  readonly holder: object | undefined;
}

/**
 * One new buffer in so many is remembered. To remember one costs more than a request with it; one that
 * is used again and again is soon among them. Odd, as programs like to use powers of two in turn.
 */
const rememberedOnceIn = 31;

/** What `addressUnlessNew` says of a buffer that is new. */
export const unknownAddress = -1;

/** Finds the address of a view's first byte. One instance a thread. */
export class AddressBook {
  readonly #addon: Addon;
  readonly #known = new WeakMap<ArrayBufferLike, KnownMemory>();
  #lastBuffer: ArrayBufferLike | undefined;
  #lastBase = 0;
  #newBuffers = 0;

  constructor(addon: Addon) {
    this.#addon = addon;
  }

  /** Address of the view's first byte, valid as long as the buffer is not collected. */
  addressOf(view: Uint8Array | Float64Array): number {
    const { buffer } = view;
    if (buffer === this.#lastBuffer) return this.#lastBase + view.byteOffset;
    const known = this.#known.get(buffer) ?? this.#remember(view);
    if (known === undefined) return 0;
    this.#lastBuffer = buffer;
    this.#lastBase = known.base;
    return known.base + view.byteOffset;
  }

  /**
   * As `addressOf`, or `unknownAddress` for most buffers that are not known yet, whose memory nothing
   * holds: the caller does so for as long as it uses them.
   */
  addressUnlessNew(view: Uint8Array): number {
    const { buffer } = view;
    const isNew =
      buffer !== this.#lastBuffer &&
      view.byteLength > 0 &&
      !this.#known.has(buffer) &&
      !types.isSharedArrayBuffer(buffer);
    if (isNew && ++this.#newBuffers % rememberedOnceIn !== 0) return unknownAddress;
    return this.addressOf(view);
  }

  /** Undefined for a buffer without memory: an empty one has none yet, a transferred one no more. */
  #remember(view: Uint8Array | Float64Array): KnownMemory | undefined {
    if (view.byteLength === 0) return undefined;
    const { buffer } = view;
    const base = this.#addon.addressOf(view) - view.byteOffset;
    const holder = types.isSharedArrayBuffer(buffer) ? undefined : this.#addon.holdMemory(buffer);
    const known = { base, holder };
    this.#known.set(buffer, known);
    return known;
  }
}
