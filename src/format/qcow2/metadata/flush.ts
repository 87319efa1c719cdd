/**
 * The order in which metadata reaches the disk, and group commit.
 *
 * A round first copies what is dirty: L1 sectors, then L2 slices, then refcount table sectors, then
 * refcount slices, so that each copy is covered by the ones taken after it. Then it writes them the
 * other way round, with a barrier wherever one must not overtake another:
 *
 *     refcount slices ▏ refcount table ▏ L2 slices ▏ L1 table ▏
 *
 * Other requests go on meanwhile; what they change stays dirty for the next round.
 */
import type { AtomicMemory } from '../../../engine/words/atomic-memory.js';
import { ControlWord, EntriesState } from '../../../engine/words/control-block.js';
import { Counter, type QueueCounters } from '../../../engine/queues/counters.js';
import { FlushRounds } from '../../../engine/flush/flush-rounds.js';
import type { LongMutex } from '../../../engine/words/long-mutex.js';
import type { SliceCache } from '../../../engine/cache/slice-cache.js';
import { takeUnflushed } from '../../../engine/flush/unflushed.js';
import { announced } from '../../../storage/filters/announced.js';
import type { StorageFile } from '../../../storage/storage.js';
import { asHostOffset } from '../layout/geometry.js';
import type { CorruptMark } from '../tables/corruption.js';
import type { OverlapCheck } from '../overlap/overlap.js';
import type { PointerTable } from '../tables/pointer-table.js';
import { Structure } from '../overlap/levels.js';

/** What a round writes, and where. */
export interface FlushParts {
  readonly memory: AtomicMemory;
  readonly counters: QueueCounters;
  readonly mutex: LongMutex;
  readonly file: StorageFile;
  readonly dataFile: StorageFile | undefined;
  readonly l1: PointerTable;
  readonly l2Cache: SliceCache;
  readonly refcountTable: PointerTable;
  readonly refcountCache: SliceCache;
  /** Whether reference counts may reach the disk late, because the dirty bit is set there. */
  readonly lazyRefcounts: () => boolean;
  readonly overlap: OverlapCheck;
  readonly corruptMark: CorruptMark;
}

/** Pieces of at most this many bytes are joined into one write. */
const maxJoinedBytes = 1 << 20;

/** One thread's access to the flush order of an open image. */
export class FlushOrder {
  readonly #parts: FlushParts;
  readonly #rounds: FlushRounds;
  #lazyEnded = false;

  constructor(parts: FlushParts) {
    this.#parts = parts;
    const { memory, mutex, counters } = parts;
    this.#rounds = new FlushRounds(
      memory,
      mutex,
      () => this.#round(!this.#lazyEnded && parts.lazyRefcounts()),
      () => {
        counters.add(Counter.roundsShared);
      },
    );
  }

  /** Notes that an L2 table was written directly; call before its L1 entry is set. */
  noteTable(): void {
    this.#parts.memory.store(ControlWord.unflushedTable, 1);
  }

  /**
   * Notes something that must be on disk before the entries that are linked from now on: a file that
   * has grown, or data that replace what the guest saw. Without a barrier between the two, a power
   * cut could leave an entry that points beyond the file, or shows neither the old data nor the new.
   * New clusters that read as zeroes, where zeroes were shown before, need no note.
   */
  noteBeforeEntries(): void {
    // A round that takes the note between the look and the link ends with a barrier all the same.
    const { memory } = this.#parts;
    if (memory.load(ControlWord.unflushedCopy) === 0) memory.store(ControlWord.unflushedCopy, 1);
  }

  /** Notes that L2 entries were changed; under the word of their slice. */
  noteEntries(): void {
    const { memory } = this.#parts;
    const { changed } = EntriesState;
    if (memory.load(ControlWord.entriesState) !== changed) {
      memory.store(ControlWord.entriesState, changed);
    }
  }

  /** From now on reference counts reach the disk in order again, before the dirty bit is cleared. */
  endLaziness(): void {
    this.#lazyEnded = true;
  }

  /**
   * Makes every request completed before this call durable. Calls that arrive while a round runs
   * share the one after it, whichever thread leads that.
   */
  flush(): Promise<void> {
    return this.#rounds.share();
  }

  /**
   * Puts the entries that requests have changed into the file, if it does not have them; they are durable
   * then, which data need not be.
   */
  async settle(): Promise<void> {
    const { memory } = this.#parts;
    if (memory.load(ControlWord.entriesState) !== EntriesState.settled) await this.flush();
  }

  /** Like `flush`, and with the reference counts also where these may be late. */
  flushAll(): Promise<void> {
    return this.#parts.mutex.runExclusive(() => this.#round(false));
  }

  /**
   * Makes dirty refcount slices clean. Counts may reach the disk before what they count, so this
   * needs nothing else to be written first; lowered ones were durable removals already.
   */
  writeRefcounts(): Promise<void> {
    return this.#parts.mutex.runExclusive(() => this.settleRefcounts());
  }

  /** Writes every dirty refcount slice, durably; the caller holds the flush mutex. */
  async settleRefcounts(): Promise<void> {
    const { refcountCache, file, corruptMark } = this.#parts;
    corruptMark.check();
    const slices = refcountCache.copyDirty();
    this.#keepOffMetadata(slices, 'a refcount block', Structure.refcountBlock);
    await this.#orOweBarrier(async () => {
      await this.#writeCopies(refcountCache, slices, 'refblock_update_part');
      await file.flush();
    });
  }

  /** Number of the last round begun; what was removed before it is copied is durable after it. */
  get begun(): number {
    return this.#rounds.begun;
  }

  /** Number of the last completed round. */
  get completed(): number {
    return this.#rounds.completed;
  }

  async #round(lazy: boolean): Promise<void> {
    const { memory } = this.#parts;
    const { settled, changed, settling } = EntriesState;
    memory.store(ControlWord.entriesState, settling);
    try {
      await this.#write(lazy);
    } catch (error) {
      memory.store(ControlWord.entriesState, changed);
      throw error;
    }
    memory.compareExchange(ControlWord.entriesState, settling, settled);
  }

  async #write(lazy: boolean): Promise<void> {
    const { memory, file, dataFile, l1, l2Cache, refcountTable, refcountCache } = this.#parts;
    this.#parts.corruptMark.check();
    this.#parts.counters.add(Counter.roundsLed);
    const data = takeUnflushed(memory);
    const l1Sectors = l1.copyDirty();
    // After the copy: whichever entries it has, their tables were noted before.
    const table = memory.exchange(ControlWord.unflushedTable, 0) !== 0;
    const l2Slices = l2Cache.copyDirty();
    const copied = memory.exchange(ControlWord.unflushedCopy, 0) !== 0;
    const tableSectors = lazy ? [] : refcountTable.copyDirty();
    const refcountSlices = lazy ? [] : refcountCache.copyDirty();
    this.#keepOffMetadata(l1Sectors, 'the L1 table', Structure.activeL1);
    this.#keepOffMetadata(l2Slices, 'an L2 table', Structure.activeL2);
    this.#keepOffMetadata(tableSectors, 'the refcount table', Structure.refcountTable);
    this.#keepOffMetadata(refcountSlices, 'a refcount block', Structure.refcountBlock);
    const owed = memory.exchange(ControlWord.barrierOwed, 0) !== 0;
    await this.#orOweBarrier(async () => {
      await file.events?.hear('flush_to_os');
      if (owed) await Promise.all([file.flush(), dataFile?.flush()]);
      await this.#writeCopies(refcountCache, refcountSlices, 'refblock_update_part');
      if (tableSectors.length > 0) {
        if (refcountSlices.length > 0) await file.flush();
        await this.#writeCopies(refcountTable, tableSectors, 'reftable_update');
      }
      const counted = refcountSlices.length + tableSectors.length > 0;
      if ((counted || copied) && l2Slices.length + l1Sectors.length > 0) {
        await Promise.all([file.flush(), copied ? dataFile?.flush() : undefined]);
      }
      await this.#writeCopies(l2Cache, l2Slices, 'l2_update');
      if (l1Sectors.length > 0) {
        if (table || l2Slices.length > 0) await file.flush();
        await this.#writeCopies(l1, l1Sectors, 'l1_update');
      }
      await file.events?.hear('flush_to_disk');
      if (counted || data || copied || table || l2Slices.length + l1Sectors.length > 0) {
        await Promise.all([file.flush(), dataFile?.flush()]);
      }
    });
  }

  /** @throws CorruptionError if a copy's place belongs to another structure too */
  #keepOffMetadata(copies: readonly Placed[], what: string, own: number): void {
    const { overlap } = this.#parts;
    if (!overlap.hasConflicts) return;
    for (const { hostOffset, bytes } of copies) {
      overlap.check(asHostOffset(hostOffset), bytes.length, what, own);
    }
  }

  /** Does a round's writing. If it fails, the next round begins with the barrier that is missing. */
  async #orOweBarrier(writing: () => Promise<void>): Promise<void> {
    try {
      await writing();
    } catch (error) {
      this.#parts.memory.store(ControlWord.barrierOwed, 1);
      throw error;
    }
  }

  /** Writes copies to their places, neighbours as one, and tells where they came from. */
  async #writeCopies<Copy extends Placed>(
    owner: { markClean(copy: Copy): void },
    copies: readonly Copy[],
    event: string,
  ): Promise<void> {
    const file = announced(this.#parts.file, { write: event });
    const written = await Promise.allSettled(
      joined(copies).map(async (group) => {
        await file.writeVector(
          group.map((copy) => copy.bytes),
          group[0].hostOffset,
        );
        for (const copy of group) owner.markClean(copy);
      }),
    );
    // Only now: a write still under way could overtake the next round's write of the same place.
    for (const end of written) if (end.status === 'rejected') throw end.reason as Error;
  }
}

/** Bytes and their place in the file. */
interface Placed {
  readonly hostOffset: number;
  readonly bytes: Uint8Array;
}

/** Groups pieces, ordered by host offset, that lie one after the other. */
function joined<Piece extends Placed>(pieces: readonly Piece[]): Piece[][] {
  const groups: Piece[][] = [];
  let end = -1;
  let size = 0;
  for (const piece of pieces) {
    if (piece.hostOffset !== end || size + piece.bytes.length > maxJoinedBytes) {
      groups.push([]);
      size = 0;
    }
    groups.at(-1)!.push(piece);
    end = piece.hostOffset + piece.bytes.length;
    size += piece.bytes.length;
  }
  return groups;
}
