/** The bits of a bzip2 stream, highest first, and its Huffman codes. */

/** Longest Huffman code in bits. */
const maxCodeBits = 20;
/** Codes up to this length are found in one step. */
const shortBits = 10;

/** Data that are no bzip2. */
export class Bzip2Error extends Error {}

/** Reads bits; beyond the end there are zeroes. */
export class BitReader {
  readonly #bytes: Uint8Array;
  #next = 0;
  /** The last bytes that were fetched; the lowest `#held` bits are still to be read. */
  #window = 0;
  #held = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Bits read so far. */
  get position(): number {
    return this.#next * 8 - this.#held;
  }

  /** Whether bits beyond the end were read. */
  get isOverrun(): boolean {
    return this.position > this.#bytes.length * 8;
  }

  /** The next bits as a number. @param count 0 to 24 */
  take(count: number): number {
    const bits = this.peek(count);
    this.#held -= count;
    return bits;
  }

  /** As `take`, without going on. */
  peek(count: number): number {
    while (this.#held < count) {
      this.#window = (this.#window << 8) | (this.#bytes[this.#next] ?? 0);
      this.#next += 1;
      this.#held += 8;
    }
    return (this.#window >>> (this.#held - count)) & ((1 << count) - 1);
  }

  /** Leaves out bits that were seen by `peek`. */
  skip(count: number): void {
    this.#held -= count;
  }

  /** Goes on at the next whole byte. */
  align(): void {
    this.#held -= this.#held % 8;
  }
}

/** A canonical Huffman code. */
export class HuffmanCode {
  /** By the next `shortBits` bits: symbol × 32 + length of its code; 0 for longer codes. */
  readonly #short = new Uint16Array(1 << shortBits);
  /** Symbols in the order of their codes. */
  readonly #symbols: Uint16Array;
  /** By length, as numbers of `maxCodeBits` bits: where codes of the next length begin. */
  readonly #ends = new Int32Array(maxCodeBits + 1);
  /** By length: what to take from a code for its symbol's index. */
  readonly #bases = new Int32Array(maxCodeBits + 1);

  /**
   * @param lengths of the codes of all symbols, in bits, from 1 to `maxCodeBits`
   * @throws Bzip2Error for lengths that no code has
   */
  constructor(lengths: Uint8Array) {
    this.#symbols = new Uint16Array(lengths.length);
    let code = 0;
    let index = 0;
    for (let length = 1; length <= maxCodeBits; length += 1) {
      this.#bases[length] = code - index;
      for (const [symbol, own] of lengths.entries()) {
        if (own !== length) continue;
        if (code >= 1 << length) throw new Bzip2Error('more codes than there can be');
        this.#symbols[index] = symbol;
        index += 1;
        if (length <= shortBits) {
          const first = code << (shortBits - length);
          this.#short.fill(symbol * 32 + length, first, first + (1 << (shortBits - length)));
        }
        code += 1;
      }
      this.#ends[length] = code << (maxCodeBits - length);
      code <<= 1;
    }
  }

  /** The next symbol. @throws Bzip2Error for bits that are no code */
  read(bits: BitReader): number {
    const next = bits.peek(maxCodeBits);
    const known = this.#short[next >>> (maxCodeBits - shortBits)];
    if (known !== 0) {
      bits.skip(known & 31);
      return known >>> 5;
    }
    let length = shortBits + 1;
    while (length <= maxCodeBits && next >= this.#ends[length]) length += 1;
    if (length > maxCodeBits) throw new Bzip2Error('bits that are no code');
    bits.skip(length);
    return this.#symbols[(next >>> (maxCodeBits - length)) - this.#bases[length]];
  }
}

/**
 * Reads a code: the length of its first symbol, and how each differs from the one before.
 *
 * @param symbols how many it has
 */
export function readCode(bits: BitReader, symbols: number): HuffmanCode {
  const lengths = new Uint8Array(symbols);
  let length = bits.take(5);
  for (let symbol = 0; symbol < symbols; symbol += 1) {
    for (;;) {
      if (length < 1 || length > maxCodeBits) throw new Bzip2Error('a code of no length');
      if (bits.take(1) === 0) break;
      length += bits.take(1) === 0 ? 1 : -1;
    }
    lengths[symbol] = length;
  }
  return new HuffmanCode(lengths);
}
