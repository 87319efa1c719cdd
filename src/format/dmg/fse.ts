/**
 * Finite state entropy as LZFSE has it: symbols by states of a table, whose entries say how many bits lead to the
 * next state. Bits are read from the end of their bytes towards the begin.
 */
import { LzfseError } from './lz-output.js';

/** Bits, the last ones first. */
export class BackwardBits {
  readonly #bytes: Uint8Array;
  /** How many are left. */
  #left: number;

  /** @param unused bits at the end that mean nothing, 0 to 7 */
  constructor(bytes: Uint8Array, unused: number) {
    this.#bytes = bytes;
    this.#left = bytes.length * 8 - unused;
    if (this.#left < 0) throw new LzfseError('it is cut off');
  }

  /** The next bits as a number. @param count 0 to 25 @throws LzfseError if there are not so many */
  pull(count: number): number {
    this.#left -= count;
    if (this.#left < 0) throw new LzfseError('it is cut off');
    const at = this.#left >> 3;
    const bytes = this.#bytes;
    const word = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    return (word >>> (this.#left & 7)) & ((1 << count) - 1);
  }
}

/** What symbols stand for: a number, to which bits that follow are added. */
export interface SymbolValues {
  readonly bases: readonly number[];
  readonly extraBits: readonly number[];
}

/** Where decoding stands; several may share a table. */
export interface FseState {
  state: number;
}

/** The table of one alphabet. */
export class FseTable {
  readonly #states: number;
  /** By state. */
  readonly #bits: Uint8Array;
  readonly #next: Int32Array;
  readonly #bases: Int32Array;
  readonly #extraBits: Uint8Array;

  /**
   * @param states a power of two
   * @param frequencies of the symbols, which add up to `states`
   * @throws LzfseError if they do not
   */
  constructor(states: number, frequencies: Uint16Array, { bases, extraBits }: SymbolValues) {
    this.#states = states;
    this.#bits = new Uint8Array(states);
    this.#next = new Int32Array(states);
    this.#bases = new Int32Array(states);
    this.#extraBits = new Uint8Array(states);
    let state = 0;
    for (const [symbol, frequency] of frequencies.entries()) {
      if (frequency === 0) continue;
      if (state + frequency > states) break;
      const bits = Math.clz32(frequency) - Math.clz32(states);
      // That many of its states take a bit more than the others.
      const longer = ((2 * states) >> bits) - frequency;
      for (let index = 0; index < frequency; index += 1, state += 1) {
        const isLonger = index < longer;
        this.#bits[state] = isLonger ? bits : bits - 1;
        this.#next[state] = isLonger
          ? ((frequency + index) << bits) - states
          : (index - longer) << (bits - 1);
        this.#bases[state] = bases[symbol];
        this.#extraBits[state] = extraBits[symbol];
      }
    }
    if (state !== states) throw new LzfseError('frequencies that do not add up');
  }

  /** @throws LzfseError if there is no such state */
  start(state: number): FseState {
    if (state >= this.#states) throw new LzfseError('a state that there is not');
    return { state };
  }

  /** The next value. @throws LzfseError */
  decode(at: FseState, bits: BackwardBits): number {
    const { state } = at;
    const extraBits = this.#extraBits[state];
    at.state = this.#next[state] + bits.pull(this.#bits[state]);
    return this.#bases[state] + bits.pull(extraBits);
  }
}
