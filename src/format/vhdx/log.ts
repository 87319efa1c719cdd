/**
 * The log of a VHDX image ([MS-VHDX] 2.3): which of its entries make up the active sequence, and what they
 * write. Whatever is hostile, each sector is looked at a bounded number of times.
 */
import { maxOffset } from '../../limits.js';
import { invalidImage } from '../failures.js';
import { crc32cAround } from './crc32c.js';
import { guidAt } from './guid.js';

/** Bytes of a sector of the log, and what writes are aligned to. */
export const logSectorBytes = 4096;

const headerBytes = 64;
const descriptorBytes = 32;
const checksumAt = 4;
/** How often all of the log may be hashed: once, if entries do not overlap. */
const maxHashRounds = 8;
/** Signatures, as words. */
const Signature = {
  entry: 0x65676f6c,
  data: 0x63736564,
  zero: 0x6f72657a,
  dataSector: 0x61746164,
} as const;

/** A write that a sequence makes: of one sector, or of zeroes. Offsets and lengths in bytes. */
export interface LoggedWrite {
  readonly offset: number;
  readonly length: number;
  /** The sector's bytes; undefined for zeroes. */
  readonly sector: Uint8Array | undefined;
}

/** The active sequence. */
export interface LogSequence {
  /** In their order. */
  readonly writes: readonly LoggedWrite[];
  /** The file had at least so many bytes when the last entry was written. */
  readonly flushedLength: number;
  /** And has to have so many when all has been written. */
  readonly lastLength: number;
}

interface LogEntry {
  /** Where in the log it begins, in bytes. */
  readonly at: number;
  readonly length: number;
  /** Where the first entry of the sequence begins that ends with this one. */
  readonly tail: number;
  readonly sequenceNumber: bigint;
  readonly descriptors: number;
}

/**
 * Finds the active sequence: the newest that is complete.
 *
 * @param bytes all of the log
 * @param id of the entries that count
 * @returns undefined if no entry is valid: nothing has been logged since the log was begun
 * @throws ERR_COWHERD_INVALID_IMAGE if entries are valid and no sequence is complete
 */
export function findActiveSequence(
  bytes: Uint8Array,
  id: string,
  filename: string,
): LogSequence | undefined {
  const log = new Log(bytes, id, filename);
  let active: readonly LogEntry[] = [];
  let hasEntries = false;
  for (let start = 0; start < bytes.length;) {
    const run = log.runFrom(start);
    const head = run.at(-1);
    if (head === undefined) {
      start += logSectorBytes;
      continue;
    }
    hasEntries = true;
    const tail = run.findIndex(({ at }) => at === head.tail);
    const newest = active.at(-1)?.sequenceNumber ?? 0n;
    // Runs that begin later within this one end with the same entry: they are complete if it is.
    if (tail !== -1 && head.sequenceNumber > newest) active = run.slice(tail);
    const next = log.after(head);
    if (next <= start) break;
    start = next;
  }
  const head = active.at(-1);
  if (head === undefined) {
    if (hasEntries) throw invalidImage(filename, 'The VHDX log has no complete sequence');
    return undefined;
  }
  return log.sequence(active, head);
}

class Log {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #id: string;
  readonly #filename: string;
  readonly #entries = new Map<number, LogEntry | undefined>();
  #hashed = 0;

  constructor(bytes: Uint8Array, id: string, filename: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#id = id;
    this.#filename = filename;
  }

  /** Entries that follow one another, each with the next sequence number. */
  runFrom(start: number): readonly LogEntry[] {
    const run: LogEntry[] = [];
    for (let entry = this.#entryAt(start); entry !== undefined;) {
      run.push(entry);
      const next = this.#entryAt(this.after(entry));
      entry = next?.sequenceNumber === entry.sequenceNumber + 1n ? next : undefined;
    }
    return run;
  }

  /** Where an entry ends, and the next one begins. */
  after({ at, length }: LogEntry): number {
    return (at + length) % this.#bytes.length;
  }

  /** What the entries of a sequence say, of which `head` is the last. */
  sequence(entries: readonly LogEntry[], head: LogEntry): LogSequence {
    return {
      writes: entries.flatMap((entry) => this.#writesOf(entry)),
      flushedLength: Number(this.#view.getBigUint64(head.at + 48, true)),
      lastLength: Number(this.#view.getBigUint64(head.at + 56, true)),
    };
  }

  #entryAt(at: number): LogEntry | undefined {
    if (!this.#entries.has(at)) this.#entries.set(at, this.#readEntry(at));
    return this.#entries.get(at);
  }

  /** The entry that begins there, if it is a valid one. */
  #readEntry(at: number): LogEntry | undefined {
    const view = this.#view;
    if (view.getUint32(at, true) !== Signature.entry) return undefined;
    const length = view.getUint32(at + 8, true);
    const tail = view.getUint32(at + 12, true);
    const sequenceNumber = view.getBigUint64(at + 16, true);
    const descriptors = view.getUint32(at + 24, true);
    if (length === 0 || length % logSectorBytes !== 0 || length > this.#bytes.length) {
      return undefined;
    }
    if (sequenceNumber === 0n || guidAt(view, at + 32) !== this.#id) return undefined;
    const entry = { at, length, tail, sequenceNumber, descriptors };
    if (!this.#isMadeUp(entry)) return undefined;
    return this.#checksum(entry) === view.getUint32(at + checksumAt, true) ? entry : undefined;
  }

  /** Whether an entry's descriptors and sectors are all there, and are its own. */
  #isMadeUp(entry: LogEntry): boolean {
    const { length, descriptors, sequenceNumber } = entry;
    let dataAt = sectorsOf(headerBytes + descriptors * descriptorBytes);
    if (dataAt > length) return false;
    for (let index = 0; index < descriptors; index++) {
      const at = this.#descriptorAt(entry, index);
      const signature = this.#view.getUint32(at, true);
      const isData = signature === Signature.data;
      if (!isData && signature !== Signature.zero) return false;
      if (this.#view.getBigUint64(at + 24, true) !== sequenceNumber) return false;
      if (this.#view.getUint32(at + 16, true) % logSectorBytes !== 0) return false;
      if (!isData && this.#view.getUint32(at + 8, true) % logSectorBytes !== 0) return false;
      if (!isData) continue;
      if (dataAt >= length || !this.#isSectorOf(entry, dataAt)) return false;
      dataAt += logSectorBytes;
    }
    return true;
  }

  /** Whether a data sector is an entry's own: it has halves of the sequence number at either end. */
  #isSectorOf({ at, sequenceNumber }: LogEntry, within: number): boolean {
    const start = this.#wrapped(at + within);
    const high = BigInt(this.#view.getUint32(start + 4, true));
    const low = BigInt(this.#view.getUint32(start + logSectorBytes - 4, true));
    const isData = this.#view.getUint32(start, true) === Signature.dataSector;
    return isData && high * 2n ** 32n + low === sequenceNumber;
  }

  #checksum({ at, length }: LogEntry): number | undefined {
    this.#hashed += length;
    if (this.#hashed > maxHashRounds * this.#bytes.length) {
      throw invalidImage(this.#filename, 'The VHDX log has entries within entries');
    }
    const first = this.#bytes.subarray(at, at + length);
    const rest = this.#bytes.subarray(0, length - first.length);
    return crc32cAround([first, rest], checksumAt);
  }

  #writesOf(entry: LogEntry): LoggedWrite[] {
    const writes: LoggedWrite[] = [];
    let dataAt = sectorsOf(headerBytes + entry.descriptors * descriptorBytes);
    for (let index = 0; index < entry.descriptors; index++) {
      const at = this.#descriptorAt(entry, index);
      const isData = this.#view.getUint32(at, true) === Signature.data;
      const offset = Number(this.#view.getBigUint64(at + 16, true));
      const length = isData ? logSectorBytes : Number(this.#view.getBigUint64(at + 8, true));
      if (offset + length > maxOffset) {
        throw invalidImage(this.#filename, `The VHDX log writes beyond every file, to ${offset}`);
      }
      const sector = isData ? this.#sector(at, this.#wrapped(entry.at + dataAt)) : undefined;
      writes.push({ offset, length, sector });
      if (isData) dataAt += logSectorBytes;
    }
    return writes;
  }

  /** The sector that is written: its first 8 bytes and its last 4 lie in the descriptor. */
  #sector(descriptorAt: number, dataAt: number): Uint8Array {
    const sector = this.#bytes.slice(dataAt, dataAt + logSectorBytes);
    sector.set(this.#bytes.subarray(descriptorAt + 8, descriptorAt + 16));
    sector.set(this.#bytes.subarray(descriptorAt + 4, descriptorAt + 8), logSectorBytes - 4);
    return sector;
  }

  #descriptorAt({ at }: LogEntry, index: number): number {
    return this.#wrapped(at + headerBytes + index * descriptorBytes);
  }

  #wrapped(at: number): number {
    return at % this.#bytes.length;
  }
}

/** Bytes of the sectors that hold so many bytes. */
function sectorsOf(bytes: number): number {
  return Math.ceil(bytes / logSectorBytes) * logSectorBytes;
}
