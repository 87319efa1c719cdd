/** Judges one state of an image by an own reading of its tables: where blocks lie, and what they show. */
import { type Mark, backingMark, sectorSize } from '../../schedules/history.js';
import { markAt } from '../marks.js';
import { nowhere, zeroed } from './maps.js';
import type { MappedWorkload } from './workloads.js';

const zeroes = new Uint8Array(1024 * 1024);
const mostProblems = 3;

/** What the sectors of a disk may show at a moment. */
export class Expectation {
  readonly permitted: readonly (readonly Mark[])[];
  readonly #workload: MappedWorkload;
  /** By block: sectors that need not be zero, and whether what is below the image, or zeroes, will do. */
  readonly #blocks: readonly {
    readonly special: readonly number[];
    readonly mayShowBelow: boolean;
    readonly mayBeZero: boolean;
  }[];

  constructor(workload: MappedWorkload, permitted: readonly (readonly Mark[])[]) {
    this.permitted = permitted;
    this.#workload = workload;
    const perBlock = workload.blockBytes / sectorSize;
    this.#blocks = Array.from({ length: Math.ceil(workload.sectors / perBlock) }, (_, block) => {
      const special: number[] = [];
      let [mayShowBelow, mayBeZero] = [true, true];
      const end = Math.min((block + 1) * perBlock, workload.sectors);
      for (let sector = block * perBlock; sector < end; sector++) {
        const marks = permitted[sector];
        if (marks.length !== 1 || marks[0] !== 0) special.push(sector);
        mayShowBelow &&= marks.includes(sector < (workload.backedSectors ?? 0) ? backingMark : 0);
        mayBeZero &&= marks.includes(0);
      }
      return { special, mayShowBelow, mayBeZero };
    });
  }

  /** What is wrong with the content of an image. @param size bytes of the file */
  problems(bytes: Uint8Array, size: number): readonly string[] {
    const { readMap, blockBytes, sectors } = this.#workload;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const map = readMap(view, size, blockBytes, this.#blocks.length);
    const problems = [...map.problems];
    const ownerOf = new Map<number, number>();
    for (const [block, offset] of map.blocks.entries()) {
      if (problems.length >= mostProblems) break;
      const { mayShowBelow, mayBeZero } = this.#blocks[block];
      if (offset === nowhere) {
        if (!mayShowBelow) problems.push(`block ${block} has lost what was flushed`);
        continue;
      }
      if (offset === zeroed) {
        if (!mayBeZero) problems.push(`block ${block} reads as zeroes`);
        continue;
      }
      const owner = ownerOf.get(offset);
      if (owner !== undefined) problems.push(`blocks ${owner} and ${block} lie at ${offset}`);
      ownerOf.set(offset, block);
      const used = Math.min(blockBytes, sectors * sectorSize - block * blockBytes);
      if (offset + used > size) problems.push(`block ${block} at ${offset} ends beyond the file`);
      else problems.push(...this.#contentProblems(bytes, block, offset, used));
    }
    return problems;
  }

  #contentProblems(bytes: Uint8Array, block: number, offset: number, used: number): string[] {
    const first = (block * this.#workload.blockBytes) / sectorSize;
    const problems: string[] = [];
    let at = offset;
    for (const sector of [...this.#blocks[block].special, first + used / sectorSize]) {
      const place = offset + (sector - first) * sectorSize;
      for (; at < place && problems.length === 0; at += zeroes.length) {
        const part = bytes.subarray(at, Math.min(place, at + zeroes.length));
        const isZero = Buffer.compare(part, zeroes.subarray(0, part.length)) === 0;
        if (!isZero) problems.push(`block ${block} shows what nobody wrote before ${sector}`);
      }
      at = place + sectorSize;
      if (place >= offset + used || problems.length > 0) break;
      const found = markAt(bytes, place, sector);
      const marks = this.permitted[sector];
      if (found !== undefined && marks.includes(found)) continue;
      problems.push(`sector ${sector} reads as ${found ?? 'no mark'}, not ${marks.join()}`);
    }
    return problems;
  }
}

/** @throws Error if a sector of a whole disk shows what it may not */
export function assertShows(bytes: Uint8Array, permitted: readonly (readonly Mark[])[]): void {
  for (const [sector, marks] of permitted.entries()) {
    const found = markAt(bytes, sector * sectorSize, sector);
    if (found === undefined || !marks.includes(found)) {
      throw new Error(`sector ${sector} reads as ${found ?? 'no mark'}, not ${marks.join()}`);
    }
  }
}
