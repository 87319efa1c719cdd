/**
 * Keeping writes off metadata. In an image whose tables contradict each other, an L2 entry may point
 * at the header, or a cluster of the L1 table be counted as free; what is about to be written,
 * allocated or freed is looked up here first.
 *
 * A hash table in shared memory has the structures that each host cluster belongs to, so that a
 * look-up costs a few nanoseconds however large the image is. Look-ups take no lock.
 */
import { SharedWords } from '../../../engine/words/shared-words.js';
import type { Poison } from '../../../engine/words/poison.js';
import { lockExclusive, unlockExclusive } from '../../../engine/words/spin-word.js';
import {
  type ClusterIndex,
  type HostOffset,
  after,
  asClusterIndex,
  asHostOffset,
} from '../layout/geometry.js';
import { CorruptionError } from '../tables/corruption.js';
import type { PointerTable } from '../tables/pointer-table.js';
import { Structure, structureName } from './levels.js';

const two32 = 0x100000000;

/** Words in front of the entries. */
const Word = {
  /** Spinning word, held while entries are added. */
  lock: 0,
  /** Entries in use. */
  used: 1,
  /** 1 once some cluster belongs to two structures. */
  conflicts: 2,
  /** 1 once an entry found no room: from then on the pointer tables are searched. */
  full: 3,
  /** Structures that are looked at, and those among them that are found by their pointers. */
  structures: 4,
} as const;
const entriesAt = 8;
const wordsPerEntry = 2;
const structuresShift = 1;
const structuresMask = 0x1ff;
const highShift = 12;
const inUse = 1;

/** The shared memory of the look-up; structured-cloneable. */
export interface OverlapMemory {
  readonly words: SharedArrayBuffer;
}

/** Makes the memory for so many clusters of metadata, which may be exceeded. */
export function allocateOverlapMemory(structures: number, clusters: number): OverlapMemory {
  let entries = 64;
  while (structures !== 0 && entries < 2 * clusters) entries *= 2;
  const words = new SharedArrayBuffer((entriesAt + entries * wordsPerEntry) * 4);
  new Int32Array(words)[Word.structures] = structures;
  return { words };
}

/** Tables whose entries say where metadata lie. */
export interface PointingTables {
  readonly l1: PointerTable;
  readonly refcountTable: PointerTable;
}

/** One thread's look-up of host clusters that hold metadata. */
export class OverlapCheck {
  readonly #words: Int32Array;
  readonly #memory: SharedWords;
  readonly #filename: string;
  readonly #clusterSize: number;
  readonly #perByte: number;
  readonly #tables: PointingTables;
  readonly #structures: number;
  readonly #mask: number;
  readonly #shift: number;

  constructor(
    memory: OverlapMemory,
    filename: string,
    clusterSize: number,
    tables: PointingTables,
    poison?: Poison,
  ) {
    this.#words = new Int32Array(memory.words);
    this.#memory = new SharedWords(this.#words, poison);
    this.#filename = filename;
    this.#clusterSize = clusterSize;
    this.#perByte = 1 / clusterSize;
    this.#tables = tables;
    this.#structures = this.#words[Word.structures];
    const entries = (this.#words.length - entriesAt) / wordsPerEntry;
    this.#mask = entries - 1;
    this.#shift = 32 - Math.log2(entries);
  }

  /** Whether some cluster belongs to two structures, so that metadata may hit metadata. */
  get hasConflicts(): boolean {
    return this.#words[Word.conflicts] !== 0;
  }

  /** Whether bytes may lie in metadata; `find` says for sure. */
  mayHit(hostOffset: HostOffset, length: number): boolean {
    if (this.#structures === 0) return false;
    if (this.#words[Word.full] !== 0) return true;
    const last = this.#clusterAt(hostOffset + length - 1);
    for (let cluster = this.#clusterAt(hostOffset); cluster <= last; cluster++) {
      if (this.#of(cluster) !== 0) return true;
    }
    return false;
  }

  /** Notes that clusters belong to a structure from now on. */
  protect(hostOffset: HostOffset, length: number, structure: number): void {
    if (!this.tracks(structure) || length === 0) return;
    const last = this.#clusterAt(hostOffset + length - 1);
    lockExclusive(this.#memory, Word.lock);
    for (let cluster = this.#clusterAt(hostOffset); cluster <= last; cluster++) {
      this.#add(cluster, structure);
    }
    unlockExclusive(this.#memory, Word.lock);
  }

  /** Whether writes are kept off a structure. */
  tracks(structure: number): boolean {
    return (this.#structures & structure) !== 0;
  }

  /** Notes that clusters do not belong to a structure any more. */
  release(hostOffset: HostOffset, length: number, structure: number): void {
    if (!this.tracks(structure) || length === 0) return;
    const last = this.#clusterAt(hostOffset + length - 1);
    lockExclusive(this.#memory, Word.lock);
    for (let cluster = this.#clusterAt(hostOffset); cluster <= last; cluster++) {
      const at = this.#entryOf(cluster);
      if (at < 0) continue;
      const rest = this.#words[at + 1];
      this.#memory.store(at + 1, rest & ~(structure << structuresShift));
    }
    unlockExclusive(this.#memory, Word.lock);
  }

  /**
   * The first cluster of a range that holds metadata.
   *
   * @param own structures that may lie there
   * @returns the cluster, and the mask of its structures; undefined if there is none
   */
  find(
    hostOffset: HostOffset,
    length: number,
    own = 0,
  ): { readonly cluster: ClusterIndex; readonly structures: number } | undefined {
    if (!this.mayHit(hostOffset, length)) return undefined;
    const last = this.#clusterAt(hostOffset + length - 1);
    for (let cluster = this.#clusterAt(hostOffset); cluster <= last; cluster++) {
      const structures = this.#confirmed(cluster, own);
      if (structures !== 0) return { cluster, structures };
    }
    return undefined;
  }

  /**
   * Makes sure that bytes may be written, allocated or freed.
   *
   * @param what the metadata or data that they are, for the message
   * @param own structures that may lie there
   * @throws CorruptionError if they lie in metadata
   */
  check(hostOffset: HostOffset, length: number, what: string, own = 0): void {
    const hit = this.find(hostOffset, length, own);
    if (hit !== undefined) throw this.refusal(hit, what);
  }

  /** The error for what `find` found. */
  refusal(
    hit: { readonly cluster: ClusterIndex; readonly structures: number },
    what: string,
  ): CorruptionError {
    const offset = hit.cluster * this.#clusterSize;
    const name = structureName(hit.structures);
    const problem = `${what} would hit ${name} at host offset ${offset}; the image is corrupt`;
    return new CorruptionError(this.#filename, problem, offset);
  }

  #clusterAt(hostOffset: number): ClusterIndex {
    return asClusterIndex(Math.floor(hostOffset * this.#perByte));
  }

  /** The structures of a cluster, those aside that have moved away since they were noted. */
  #confirmed(cluster: ClusterIndex, own: number): number {
    let structures = this.#of(cluster);
    if (this.#words[Word.full] !== 0) {
      structures |= this.#structures & (Structure.activeL2 | Structure.refcountBlock);
    }
    structures &= ~own;
    const from = asHostOffset(cluster * this.#clusterSize);
    const to = after(from, this.#clusterSize);
    const { l1, refcountTable } = this.#tables;
    const moves = (structure: number, isThere: () => boolean): void => {
      if ((structures & structure) !== 0 && !isThere()) structures &= ~structure;
    };
    moves(Structure.activeL2, () => l1.pointsInto(from, to, this.#clusterSize));
    moves(Structure.refcountBlock, () => refcountTable.pointsInto(from, to, this.#clusterSize));
    const liesIn = ({ hostOffset, length }: PointerTable): boolean =>
      hostOffset < to && hostOffset + length * 8 > from;
    moves(Structure.refcountTable, () => liesIn(refcountTable));
    moves(Structure.activeL1, () => liesIn(l1));
    return structures;
  }

  #of(cluster: ClusterIndex): number {
    const at = this.#entryOf(cluster);
    return at < 0 ? 0 : (this.#words[at + 1] >>> structuresShift) & structuresMask;
  }

  /** Where the entry of a cluster begins, -1 if there is none. */
  #entryOf(cluster: ClusterIndex): number {
    const words = this.#words;
    const low = cluster | 0;
    let at = entriesAt + this.#first(low) * wordsPerEntry;
    for (let rest; (rest = words[at + 1]) !== 0;) {
      if (words[at] === low && rest >>> highShift === Math.floor(cluster / two32)) return at;
      at += wordsPerEntry;
      if (at === words.length) at = entriesAt;
    }
    return -1;
  }

  #first(low: number): number {
    // Neighbours, which metadata often are, must not make one long run of entries.
    return Math.imul(low, 0x9e3779b1) >>> this.#shift;
  }

  /** The caller holds the lock. What has moved away from the cluster is forgotten. */
  #add(cluster: ClusterIndex, structure: number): void {
    const words = this.#words;
    const low = cluster | 0;
    const high = Math.floor(cluster / two32);
    for (let entry = this.#first(low); ; entry = (entry + 1) & this.#mask) {
      const at = entriesAt + entry * wordsPerEntry;
      const rest = words[at + 1];
      if (rest !== 0 && (words[at] !== low || rest >>> highShift !== high)) continue;
      let structures = structure;
      if (rest === 0) {
        // Some stay empty, where look-ups end.
        if (words[Word.used] >= (this.#mask + 1) * 0.75) {
          this.#memory.store(Word.full, 1);
          return;
        }
        words[Word.used]++;
        words[at] = low;
      } else {
        structures |= this.#confirmed(cluster, structure);
        if (structures !== structure) this.#memory.store(Word.conflicts, 1);
      }
      this.#memory.store(at + 1, (high << highShift) | (structures << structuresShift) | inUse);
      return;
    }
  }
}
