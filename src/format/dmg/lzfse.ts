/**
 * LZFSE, Apple's compression: blocks that are plain, packed by LZVN, or literals and copies whose numbers are
 * packed by finite state entropy. Numbers are little-endian.
 */
import { BackwardBits, FseTable, type SymbolValues } from './fse.js';
import { LzOutput, LzfseError } from './lz-output.js';
import { unpackLzvn } from './lzvn.js';

const Magic = { end: 'bvx$', plain: 'bvx-', lzvn: 'bvxn', wide: 'bvx1', packed: 'bvx2' } as const;

/** Values whose first ones stand for themselves, and the others for ranges. */
function valuesOf(extraBits: readonly number[]): SymbolValues {
  let next = 0;
  const bases = extraBits.map((bits) => {
    const base = next;
    next += 1 << bits;
    return base;
  });
  return { bases, extraBits };
}

const sixteen = Array<number>(16).fill(0);
/** The alphabets, in the order in which frequencies are stored, and how many states each has. */
const alphabets = {
  literals: { states: 64, values: valuesOf([...sixteen, 2, 3, 5, 8]) },
  copied: { states: 64, values: valuesOf([...sixteen, 3, 5, 8, 11]) },
  distance: {
    states: 256,
    values: valuesOf(Array.from({ length: 64 }, (_, symbol) => symbol >> 2)),
  },
  byte: { states: 1024, values: valuesOf(Array<number>(256).fill(0)) },
} as const;

const symbols = Object.values(alphabets).map(({ values }) => values.bases.length);
const allSymbols = symbols.reduce((sum, count) => sum + count, 0);

/** Most literals of a block, and instructions. */
const maxLiterals = 40_000;
const maxCopies = 10_000;
const packedHeaderBytes = 32;
const wideHeaderBytes = 772;

interface BlockHeader {
  readonly length: number;
  readonly literals: number;
  readonly copies: number;
  readonly literalBytes: number;
  readonly copyBytes: number;
  readonly literalUnused: number;
  readonly copyUnused: number;
  readonly literalStates: readonly number[];
  readonly literalsState: number;
  readonly copiedState: number;
  readonly distanceState: number;
  readonly frequencies: Uint16Array;
}

/**
 * Unpacks a stream.
 *
 * @param into filled exactly
 * @throws Error for data that do not fill it
 */
export function unpackLzfse(packed: Uint8Array, into: Uint8Array): void {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length);
  const output = new LzOutput(into);
  for (let at = 0; ;) {
    if (at + 4 > packed.length) throw new LzfseError('it is cut off');
    const magic = String.fromCharCode(...packed.subarray(at, at + 4));
    if (magic === Magic.end) break;
    if (at + 12 > packed.length) throw new LzfseError('it is cut off');
    const before = output.length;
    const length = view.getUint32(at + 4, true);
    if (magic === Magic.plain) {
      output.write(part(packed, at + 8, length));
      at += 8 + length;
    } else if (magic === Magic.lzvn) {
      const bytes = view.getUint32(at + 8, true);
      unpackLzvn(part(packed, at + 12, bytes), output);
      at += 12 + bytes;
    } else if (magic === Magic.packed || magic === Magic.wide) {
      at = unpackBlock(packed, view, at, output, magic === Magic.wide);
    } else throw new LzfseError('no block begins there');
    if (output.length - before !== length) throw new LzfseError('a block of another length');
  }
  if (output.length < into.length) throw new LzfseError('there is less than expected');
}

function part(bytes: Uint8Array, at: number, length: number): Uint8Array {
  if (length > bytes.length - at) throw new LzfseError('it is cut off');
  return bytes.subarray(at, at + length);
}

/** @returns where the next block begins */
function unpackBlock(
  packed: Uint8Array,
  view: DataView,
  at: number,
  output: LzOutput,
  isWide: boolean,
): number {
  part(packed, at, isWide ? wideHeaderBytes : packedHeaderBytes);
  const { header, end } = isWide ? wideHeader(view, at) : packedHeader(packed, view, at);
  if (header.literals > maxLiterals || header.copies > maxCopies) {
    throw new LzfseError('a block that is too long');
  }
  const tables = tablesOf(header.frequencies);
  const literals = unpackLiterals(part(packed, end, header.literalBytes), header, tables.byte);
  const copiesAt = end + header.literalBytes;
  const bits = new BackwardBits(part(packed, copiesAt, header.copyBytes), header.copyUnused);
  const literalsAt = tables.literals.start(header.literalsState);
  const copiedAt = tables.copied.start(header.copiedState);
  const distanceAt = tables.distance.start(header.distanceState);
  let used = 0;
  let distance = 0;
  for (let left = header.copies; left > 0; left -= 1) {
    const count = tables.literals.decode(literalsAt, bits);
    const copied = tables.copied.decode(copiedAt, bits);
    // None means the last one again.
    distance = tables.distance.decode(distanceAt, bits) || distance;
    output.write(part(literals, used, count));
    used += count;
    output.copy(distance, copied);
  }
  return copiesAt + header.copyBytes;
}

/** Four states take turns. */
function unpackLiterals(packed: Uint8Array, header: BlockHeader, table: FseTable): Uint8Array {
  const { literals: count, literalUnused, literalStates } = header;
  const bytes = new Uint8Array(count);
  const bits = new BackwardBits(packed, literalUnused);
  const states = literalStates.map((state) => table.start(state));
  for (let index = 0; index < count; index += 1)
    bytes[index] = table.decode(states[index & 3], bits);
  return bytes;
}

function tablesOf(frequencies: Uint16Array): Record<keyof typeof alphabets, FseTable> {
  let at = 0;
  const next = (name: keyof typeof alphabets): FseTable => {
    const { states, values } = alphabets[name];
    const own = frequencies.subarray(at, at + values.bases.length);
    at += own.length;
    return new FseTable(states, own, values);
  };
  return {
    literals: next('literals'),
    copied: next('copied'),
    distance: next('distance'),
    byte: next('byte'),
  };
}

/** A header whose fields are bits of three numbers, and whose frequencies are packed as well. */
function packedHeader(
  packed: Uint8Array,
  view: DataView,
  at: number,
): { readonly header: BlockHeader; readonly end: number } {
  const fields = [8, 16, 24].map((offset) => view.getBigUint64(at + offset, true));
  const field = (number: number, from: number, count: number): number =>
    Number(BigInt.asUintN(count, fields[number] >> BigInt(from)));
  const headerBytes = field(2, 0, 32);
  if (headerBytes < packedHeaderBytes) throw new LzfseError('a header that is too short');
  const frequencies = unpackFrequencies(part(packed, at, headerBytes).subarray(packedHeaderBytes));
  const header = {
    length: view.getUint32(at + 4, true),
    literals: field(0, 0, 20),
    literalBytes: field(0, 20, 20),
    copies: field(0, 40, 20),
    literalUnused: 7 - field(0, 60, 3),
    literalStates: [0, 10, 20, 30].map((from) => field(1, from, 10)),
    copyBytes: field(1, 40, 20),
    copyUnused: 7 - field(1, 60, 3),
    literalsState: field(2, 32, 10),
    copiedState: field(2, 42, 10),
    distanceState: field(2, 52, 10),
    frequencies,
  };
  return { header, end: at + headerBytes };
}

/** A header whose fields are numbers of their own. */
function wideHeader(
  view: DataView,
  at: number,
): { readonly header: BlockHeader; readonly end: number } {
  const word = (offset: number): number => view.getUint32(at + offset, true);
  const short = (offset: number): number => view.getUint16(at + offset, true);
  const unused = (offset: number): number => {
    const bits = -view.getInt32(at + offset, true);
    if (bits < 0 || bits > 7) throw new LzfseError('bits that there are not');
    return bits;
  };
  const header = {
    length: word(4),
    literals: word(12),
    copies: word(16),
    literalBytes: word(20),
    copyBytes: word(24),
    literalUnused: unused(28),
    literalStates: [32, 34, 36, 38].map(short),
    copyUnused: unused(40),
    literalsState: short(44),
    copiedState: short(46),
    distanceState: short(48),
    frequencies: Uint16Array.from({ length: allSymbols }, (_, index) => short(50 + index * 2)),
  };
  return { header, end: at + wideHeaderBytes };
}

/** Frequencies up to 7 by prefixes of two to five bits; larger ones in 8 or 14 bits. Lowest bits come first. */
function unpackFrequencies(packed: Uint8Array): Uint16Array {
  const frequencies = new Uint16Array(allSymbols);
  if (packed.length === 0) return frequencies;
  let at = 0;
  let window = 0;
  let held = 0;
  for (let symbol = 0; symbol < allSymbols; symbol += 1) {
    for (; held < 14 && at < packed.length; held += 8) window |= packed[at++] << held;
    const [frequency, bits] = frequencyOf(window);
    if (bits > held) throw new LzfseError('it is cut off');
    frequencies[symbol] = frequency;
    window >>>= bits;
    held -= bits;
  }
  return frequencies;
}

/** @returns the frequency that bits begin with, and how many they are */
function frequencyOf(bits: number): readonly [frequency: number, bits: number] {
  if ((bits & 1) === 0) return [(bits >> 1) & 1, 2];
  if ((bits & 2) === 0) return [((bits >> 2) & 1) + 2, 3];
  if ((bits & 4) === 0) return [((bits >> 3) & 3) + 4, 5];
  if ((bits & 8) === 0) return [((bits >> 4) & 15) + 8, 8];
  return [((bits >> 4) & 0x3ff) + 24, 14];
}
