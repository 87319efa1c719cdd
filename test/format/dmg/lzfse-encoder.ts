/** Packs LZFSE in each of its ways, badly: no tool here does. */
import type { Random } from '../../stress/random.js';

/** Literals, and what to copy after them. */
interface Step {
  readonly literals: Buffer;
  readonly copied: number;
  readonly distance: number;
}

/** How bytes are packed. */
export type LzfseKind = 'plain' | 'lzvn' | 'packed' | 'wide';

/** A stream of blocks of so many bytes, of one kind or another in turn. */
export function lzfse(
  content: Buffer,
  kinds: readonly LzfseKind[],
  random: Random,
  blockBytes = 20_000,
): Buffer {
  const blocks: Buffer[] = [];
  for (let at = 0; at < content.length; at += blockBytes) {
    const end = Math.min(content.length, at + blockBytes);
    blocks.push(block(random.pick(kinds), content, at, end, random));
  }
  return Buffer.concat([...blocks, Buffer.from('bvx$')]);
}

function block(kind: LzfseKind, all: Buffer, at: number, end: number, random: Random): Buffer {
  const header = Buffer.alloc(kind === 'lzvn' ? 12 : 8);
  header.writeUInt32LE(end - at, 4);
  if (kind === 'plain') {
    header.write('bvx-');
    return Buffer.concat([header, all.subarray(at, end)]);
  }
  if (kind === 'lzvn') {
    header.write('bvxn');
    // What lies in the blocks before may not be reached: some decoders keep nothing of it.
    const packed = lzvn(stepsOf(all, at, end, { from: at, reach: 65535, longest: 10_000 }), random);
    header.writeUInt32LE(packed.length, 8);
    return Buffer.concat([header, packed]);
  }
  return entropy(stepsOf(all, at, end, { from: 0, reach: 262_139, longest: 2359 }), end - at, kind);
}

/** Cuts bytes into literals and copies, which begin at `from` at the earliest. */
function stepsOf(
  all: Buffer,
  start: number,
  end: number,
  { from, reach, longest }: { readonly from: number; readonly reach: number; longest: number },
): Step[] {
  const seen = new Map<number, number>();
  const key = (at: number): number => all.readUInt32LE(at);
  for (let at = from; at < start; at++) seen.set(key(at), at);
  const steps: Step[] = [];
  let literalsAt = start;
  for (let at = start; at < end;) {
    const isLast = at + 4 > end;
    const before = isLast ? undefined : seen.get(key(at));
    if (!isLast) seen.set(key(at), at);
    let copied = 0;
    if (before !== undefined && before < at && at - before <= reach) {
      const most = Math.min(longest, end - at);
      while (copied < most && all[before + copied] === all[at + copied]) copied++;
    }
    if (copied < 4 && at - literalsAt < 300) {
      at++;
      continue;
    }
    const literals = all.subarray(literalsAt, at);
    const distance = copied >= 4 ? at - before! : 1;
    steps.push({ literals, copied: copied >= 4 ? copied : 0, distance });
    at += copied >= 4 ? copied : 0;
    literalsAt = at;
  }
  if (literalsAt < end) {
    steps.push({ literals: all.subarray(literalsAt, end), copied: 0, distance: 1 });
  }
  return steps;
}

/** Instructions of every kind that says what is wanted, drawn at random. */
function lzvn(steps: readonly Step[], random: Random): Buffer {
  const bytes: number[] = [];
  let last = 0;
  for (const { literals, copied, distance } of steps) {
    let left = literals;
    const most = copied > 0 ? 3 : 0;
    while (left.length > most) {
      const count = Math.min(left.length, left.length >= 16 && random.chance(0.7) ? 271 : 15);
      if (count < 16) bytes.push(0xe0 | count);
      else bytes.push(0xe0, count - 16);
      bytes.push(...left.subarray(0, count));
      left = left.subarray(count);
    }
    if (copied === 0) continue;
    if (random.chance(0.1)) bytes.push(random.pick([0x0e, 0x16]));
    const few = left.length;
    // The codes of more are those of other instructions.
    const mostCopied = [10, 8, 6, 4][few];
    const short = Math.min(copied, mostCopied);
    const code = (few << 6) | ((short - 3) << 3);
    let done = short;
    const ways = ['far'];
    if (distance < 0x600) ways.push('near', 'near');
    if (distance < 0x4000) ways.push('middle');
    if (distance === last && few > 0) ways.push('again');
    const way = random.pick(ways);
    if (way === 'near') bytes.push(code | (distance >> 8), distance & 255);
    else if (way === 'far') bytes.push(code | 7, distance & 255, distance >> 8);
    else if (way === 'again') bytes.push(code | 6);
    else {
      done = Math.min(copied, 34);
      const count = done - 3;
      bytes.push(0xa0 | (few << 3) | (count >> 2));
      bytes.push((count & 3) | ((distance & 63) << 2), distance >> 6);
    }
    bytes.push(...left);
    last = distance;
    for (; done < copied;) {
      const count = Math.min(copied - done, random.chance(0.5) ? 15 : 271);
      if (count < 16) bytes.push(0xf0 | count);
      else bytes.push(0xf0, count - 16);
      done += count;
    }
  }
  bytes.push(6, 0, 0, 0, 0, 0, 0, 0);
  return Buffer.from(bytes);
}

/** Bits, the first ones lowest. */
class Bits {
  readonly #bits: number[] = [];

  push(value: number, count: number): void {
    for (let bit = 0; bit < count; bit++) this.#bits.push((value >> bit) & 1);
  }

  get unused(): number {
    return (8 - (this.#bits.length % 8)) % 8;
  }

  get bytes(): Buffer {
    const bytes = Buffer.alloc(Math.ceil(this.#bits.length / 8));
    for (const [at, bit] of this.#bits.entries()) bytes[at >> 3] |= bit << (at & 7);
    return bytes;
  }
}

const few = Array<number>(16).fill(0);
const extra = {
  literals: [...few, 2, 3, 5, 8],
  copied: [...few, 3, 5, 8, 11],
  distance: Array.from({ length: 64 }, (_, symbol) => Math.floor(symbol / 4)),
  byte: Array<number>(256).fill(0),
};

/** An alphabet with frequencies of what is to be encoded. */
class Encoder {
  state = 0;
  readonly frequencies: number[];
  readonly #states: number;
  readonly #extra: readonly number[];
  readonly #bases: number[] = [];

  constructor(states: number, extraBits: readonly number[], values: readonly number[]) {
    this.#states = states;
    this.#extra = extraBits;
    let base = 0;
    for (const bits of extraBits) {
      this.#bases.push(base);
      base += 2 ** bits;
    }
    const counts = Array<number>(extraBits.length).fill(0);
    for (const value of values) counts[this.#symbolOf(value)]++;
    this.frequencies = counts.map((count) =>
      count === 0 ? 0 : Math.max(1, Math.floor((count * states) / Math.max(1, values.length))),
    );
    // They have to add up.
    const sum = (): number => this.frequencies.reduce((all, each) => all + each, 0);
    while (sum() !== states) {
      const highest = this.frequencies.indexOf(Math.max(...this.frequencies));
      this.frequencies[highest] += sum() > states ? -1 : states - sum();
    }
  }

  #symbolOf(value: number): number {
    return this.#bases.findLastIndex((base) => base <= value);
  }

  /** Begins, at the end of what is encoded, in a state that there is. */
  begin(): void {
    this.state = 0;
  }

  /**
   * Puts a value before those that follow it. Of the symbol's states one leads to the present one: the states
   * of a symbol share out all of them, in intervals whose lengths are powers of two.
   */
  encode(value: number, bits: Bits): void {
    const symbol = this.#symbolOf(value);
    bits.push(value - this.#bases[symbol], this.#extra[symbol]);
    const frequency = this.frequencies[symbol];
    const first = this.frequencies.slice(0, symbol).reduce((all, each) => all + each, 0);
    // Numbers from the frequency to twice that, each shifted until it is at least the number of states.
    for (let index = 0; index < frequency; index++) {
      let shift = 0;
      while ((frequency + index) << shift < this.#states) shift++;
      const start = ((frequency + index) << shift) - this.#states;
      if (this.state < start || this.state >= start + 2 ** shift) continue;
      bits.push(this.state - start, shift);
      this.state = first + index;
      return;
    }
    throw new Error('no state leads there');
  }
}

function entropy(steps: readonly Step[], length: number, kind: 'packed' | 'wide'): Buffer {
  const all = Buffer.concat(steps.map(({ literals }) => literals));
  const bytes = Buffer.concat([all, Buffer.alloc((4 - (all.length % 4)) % 4)]);
  const byte = new Encoder(1024, extra.byte, [...bytes]);
  const literalBits = new Bits();
  const states = [0, 0, 0, 0];
  for (let index = bytes.length - 1; index >= 0; index--) {
    byte.state = states[index % 4];
    byte.encode(bytes[index], literalBits);
    states[index % 4] = byte.state;
  }
  // The same distance again is none.
  const shown = steps.map(({ distance }, index) =>
    index > 0 && steps[index - 1].distance === distance ? 0 : distance,
  );
  const literals = new Encoder(
    64,
    extra.literals,
    steps.map((step) => step.literals.length),
  );
  const copied = new Encoder(
    64,
    extra.copied,
    steps.map((step) => step.copied),
  );
  const distance = new Encoder(256, extra.distance, shown);
  const bits = new Bits();
  // Zeroes come first, eight bytes, for decoders that read so many at once.
  for (let byte = 0; byte < 8; byte++) bits.push(0, 8);
  for (let index = steps.length - 1; index >= 0; index--) {
    distance.encode(shown[index], bits);
    copied.encode(steps[index].copied, bits);
    literals.encode(steps[index].literals.length, bits);
  }
  const payload = Buffer.concat([literalBits.bytes, bits.bytes]);
  const [literalBytes, stepBytes] = [literalBits.bytes.length, bits.bytes.length];
  const frequencies = [literals, copied, distance, byte].flatMap((each) => each.frequencies);
  const ends = [literals.state, copied.state, distance.state];
  if (kind === 'wide') {
    const header = Buffer.alloc(772);
    header.write('bvx1');
    const words = [length, payload.length, bytes.length, steps.length, literalBytes, stepBytes];
    for (const [index, word] of words.entries()) header.writeUInt32LE(word, 4 + index * 4);
    header.writeInt32LE(-literalBits.unused, 28);
    for (const [index, state] of states.entries()) header.writeUInt16LE(state, 32 + index * 2);
    header.writeInt32LE(-bits.unused, 40);
    for (const [index, state] of ends.entries()) header.writeUInt16LE(state, 44 + index * 2);
    for (const [index, each] of frequencies.entries()) header.writeUInt16LE(each, 50 + index * 2);
    return Buffer.concat([header, payload]);
  }
  const stored = new Bits();
  for (const each of frequencies) {
    if (each < 2) stored.push(each << 1, 2);
    else if (each < 4) stored.push(1 | ((each - 2) << 2), 3);
    else if (each < 8) stored.push(3 | ((each - 4) << 3), 5);
    else if (each < 24) stored.push(7 | ((each - 8) << 4), 8);
    else stored.push(15 | ((each - 24) << 4), 14);
  }
  const header = Buffer.alloc(32);
  header.write('bvx2');
  header.writeUInt32LE(length, 4);
  const joined = (...fields: readonly (readonly [value: number, from: number])[]): bigint =>
    fields.reduce((sum, [value, from]) => sum | (BigInt(value) << BigInt(from)), 0n);
  const literalEnd = [7 - literalBits.unused, 60] as const;
  const numbers = [
    joined([bytes.length, 0], [literalBytes, 20], [steps.length, 40], literalEnd),
    joined(
      ...states.map((state, index) => [state, index * 10] as const),
      [stepBytes, 40],
      [7 - bits.unused, 60],
    ),
    joined([32 + stored.bytes.length, 0], [ends[0], 32], [ends[1], 42], [ends[2], 52]),
  ];
  for (const [index, number] of numbers.entries()) header.writeBigUInt64LE(number, 8 + index * 8);
  return Buffer.concat([header, stored.bytes, payload]);
}
