/**
 * Blocks of a bzip2 stream: Huffman codes over runs of zeroes and ranks (move to front), of what was sorted
 * by what follows it (Burrows and Wheeler), of bytes in which runs are shortened.
 */
import { type BitReader, Bzip2Error, type HuffmanCode, readCode } from './bzip2-bits.js';

/** Symbols that one code in turn is used for. */
const groupLength = 50;
/** Bytes that are given out at once at most. */
const pieceBytes = 64 * 1024;
/** Equal bytes after which comes how many more there are. */
const runBytes = 4;

const crcTable = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit += 1) crc = (crc << 1) ^ (crc < 0 ? 0x04c11db7 : 0);
  return crc;
});

/** A block that was read, and is still to be put in order. */
export interface Bzip2Block {
  /** In the lowest byte those of the block, sorted; above it where what follows each one is. */
  readonly sorted: Int32Array;
  /** Where the first byte is. */
  readonly first: number;
  /** Checksum of what comes out of it. */
  readonly checksum: number;
}

/**
 * Reads a block, after the number that says there is one.
 *
 * @param room as long as a block may be; the block lies at its begin
 * @throws Bzip2Error
 */
export function readBlock(bits: BitReader, room: Int32Array): Bzip2Block {
  const checksum = (bits.take(16) << 16) | bits.take(16);
  if (bits.take(1) !== 0) throw new Bzip2Error('a block that was shuffled, as no program does now');
  const first = bits.take(24);
  const alphabet = readAlphabet(bits);
  const codes = readCodes(bits, alphabet.length + 2);
  const counts = new Int32Array(256);
  const length = readRanks(bits, alphabet, codes, room, counts);
  if (first >= length) throw new Bzip2Error('a block that begins behind its end');
  let before = 0;
  for (const [byte, count] of counts.entries()) {
    counts[byte] = before;
    before += count;
  }
  for (let at = 0; at < length; at += 1) {
    const byte = room[at] & 0xff;
    room[counts[byte]] |= at << 8;
    counts[byte] += 1;
  }
  return { sorted: room.subarray(0, length), first, checksum };
}

/** The bytes that occur. */
function readAlphabet(bits: BitReader): Uint8Array {
  const groups = bits.take(16);
  const bytes: number[] = [];
  for (let group = 0; group < 16; group += 1) {
    if (((groups >> (15 - group)) & 1) === 0) continue;
    const members = bits.take(16);
    for (let member = 0; member < 16; member += 1) {
      if (((members >> (15 - member)) & 1) !== 0) bytes.push(group * 16 + member);
    }
  }
  if (bytes.length === 0) throw new Bzip2Error('a block without bytes');
  return Uint8Array.from(bytes);
}

/** The code of each group of symbols, one after the other. */
function readCodes(bits: BitReader, symbols: number): HuffmanCode[] {
  const count = bits.take(3);
  if (count < 2 || count > 6) throw new Bzip2Error('too many or too few codes');
  const selectors = new Uint8Array(bits.take(15));
  const recent = Uint8Array.from({ length: count }, (_, code) => code);
  for (let index = 0; index < selectors.length; index += 1) {
    let rank = 0;
    while (bits.take(1) !== 0) {
      rank += 1;
      if (rank >= count) throw new Bzip2Error('a code that there is not');
    }
    selectors[index] = toFront(recent, rank);
  }
  const codes = Array.from({ length: count }, () => readCode(bits, symbols));
  return Array.from(selectors, (code) => codes[code]);
}

/** Fills `room`, and counts how often each byte occurs. @returns how many there are */
function readRanks(
  bits: BitReader,
  alphabet: Uint8Array,
  codes: readonly HuffmanCode[],
  room: Int32Array,
  counts: Int32Array,
): number {
  const end = alphabet.length + 1;
  const recent = Uint8Array.from(alphabet);
  let length = 0;
  /** Of a run that is being read: its bytes so far, and what the next digit counts. */
  let run = 0;
  let weight = 1;
  for (const code of codes) {
    for (let left = groupLength; left > 0; left -= 1) {
      const symbol = code.read(bits);
      if (symbol <= 1) {
        run += weight << symbol;
        weight <<= 1;
        // Checked here, so that neither number ever leaves its range.
        if (length + run > room.length) throw new Bzip2Error('a run beyond the block');
        continue;
      }
      if (run > 0) {
        const byte = recent[0];
        room.fill(byte, length, length + run);
        counts[byte] += run;
        length += run;
        run = 0;
        weight = 1;
      }
      if (symbol === end) return length;
      if (length === room.length) throw new Bzip2Error('a block that is too long');
      const byte = toFront(recent, symbol - 1);
      room[length] = byte;
      counts[byte] += 1;
      length += 1;
    }
  }
  throw new Bzip2Error('a block without end');
}

/** Takes what has a rank, and gives it the first one. */
function toFront(recent: Uint8Array, rank: number): number {
  const taken = recent[rank];
  for (let at = rank; at > 0; at -= 1) recent[at] = recent[at - 1];
  recent[0] = taken;
  return taken;
}

/**
 * The bytes of a block as they were packed, in pieces: a block may stand for fifty times its own length.
 *
 * @throws Bzip2Error before the last piece, if the checksum does not match
 */
export function* unsortBlock({ sorted, first, checksum }: Bzip2Block): Generator<Uint8Array> {
  let piece = new Uint8Array(pieceBytes);
  let filled = 0;
  let crc = -1;
  let next = sorted[first] >>> 8;
  let last = -1;
  let alike = 0;
  for (let left = sorted.length; left > 0; left -= 1) {
    const entry = sorted[next];
    const byte = entry & 0xff;
    next = entry >>> 8;
    const isCount = alike === runBytes;
    const written = isCount ? last : byte;
    alike = isCount ? 0 : byte === last ? alike + 1 : 1;
    last = isCount ? -1 : byte;
    for (let copies = isCount ? byte : 1; copies > 0; copies -= 1) {
      if (filled === pieceBytes) {
        yield piece;
        piece = new Uint8Array(pieceBytes);
        filled = 0;
      }
      piece[filled] = written;
      filled += 1;
      crc = (crc << 8) ^ crcTable[(crc >>> 24) ^ written];
    }
  }
  if (~crc !== checksum) throw new Bzip2Error('a checksum that does not match');
  yield piece.subarray(0, filled);
}
