/** A guest's memory as this thread has it mapped: found by the addresses that guests and front-ends use. */
import { lostPages, isMemoryWhole, mapMemory } from '../../native/mapped-memory.js';
import { describeErrno, errnoName } from '../../system-errors.js';
import { VhostUserError } from './protocol.js';

/** A region of guest memory, as a front-end describes it. Addresses and sizes are in bytes. */
export interface RegionFacts {
  /** Tells it from every other one that the front-end had. */
  readonly id: number;
  readonly guestAddress: number;
  readonly userAddress: number;
  readonly size: number;
  /** Where it begins in its file. */
  readonly fileOffset: number;
  /** Of its file; open for as long as it takes to map it. */
  readonly descriptor: number;
}

/** A region that is mapped. */
export interface Region extends Omit<RegionFacts, 'descriptor' | 'fileOffset'> {
  readonly memory: ArrayBuffer;
  /** All of the mapping. */
  readonly view: DataView;
  /** Where the region begins in it. */
  readonly start: number;
}

/** A place in guest memory: so many bytes into a mapping. */
export interface Place {
  readonly region: Region;
  readonly offset: number;
}

/** See the file's comment. */
export class GuestMemory {
  #regions: readonly Region[] = [];
  #last: Region | undefined;
  #lostPages = lostPages();

  /** Has exactly these regions from now on. What is under way keeps those that it uses. */
  set(wanted: readonly RegionFacts[]): void {
    const known = new Map(this.#regions.map((region) => [region.id, region]));
    this.#regions = wanted.map((facts) => known.get(facts.id) ?? mapRegion(facts));
    this.#last = undefined;
  }

  /** Where a guest address lies, if that many bytes follow it in the same region. */
  find(address: number, length: number): Place | undefined {
    const region = this.#regionOf(address);
    if (region === undefined) return undefined;
    const within = address - region.guestAddress;
    return length <= region.size - within ? { region, offset: region.start + within } : undefined;
  }

  /** As `find`, of an address of the front-end's own. */
  findUser(address: number, length: number): Place | undefined {
    for (const region of this.#regions) {
      const within = address - region.userAddress;
      if (within >= 0 && within < region.size && length <= region.size - within) {
        return { region, offset: region.start + within };
      }
    }
    return undefined;
  }

  /**
   * Adds what lies at a guest address to a list, in as many parts as there are regions.
   *
   * @returns whether all of it is guest memory
   */
  collect(into: Uint8Array[], address: number, length: number): boolean {
    let done = 0;
    while (done < length) {
      const region = this.#regionOf(address + done);
      if (region === undefined) return false;
      const within = address + done - region.guestAddress;
      const part = Math.min(length - done, region.size - within);
      into.push(new Uint8Array(region.memory, region.start + within, part));
      done += part;
    }
    return true;
  }

  /** Whether none of it was taken away since it was mapped, as far as it was touched. */
  get isWhole(): boolean {
    const lost = lostPages();
    if (lost === this.#lostPages) return true;
    this.#lostPages = lost;
    const isWhole = this.#regions.every(({ memory }) => isMemoryWhole(memory));
    // Asked again it says the same.
    if (!isWhole) this.#lostPages = -1;
    return isWhole;
  }

  #regionOf(address: number): Region | undefined {
    const last = this.#last;
    if (last !== undefined && isIn(last, address)) return last;
    for (const region of this.#regions) {
      if (isIn(region, address)) return (this.#last = region);
    }
    return undefined;
  }
}

function isIn({ guestAddress, size }: Region, address: number): boolean {
  return address >= guestAddress && address - guestAddress < size;
}

function mapRegion({ descriptor, fileOffset, ...facts }: RegionFacts): Region {
  const bytes = mapMemory(descriptor, fileOffset, facts.size);
  if (typeof bytes === 'number') {
    const reason = describeErrno(errnoName(bytes));
    throw new VhostUserError(`a region of guest memory cannot be mapped: ${reason}`);
  }
  const { buffer: memory, byteOffset: start } = bytes;
  return { ...facts, memory, start, view: new DataView(memory) };
}
