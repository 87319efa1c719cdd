/**
 * What was done to each sector, and which values it may therefore hold. Every operation carries the
 * time it began and the time it ended, of one clock that all threads share; an operation that began
 * after another had ended has overwritten it.
 */

/** Bytes of a sector, each of which holds one stamp over and over. */
export const sectorBytes = 512;

/** Numbers of an operation in a log, one after the other. */
const fields = 6;

/** What an operation did. */
export const Kind = {
  /** Left its value in every sector. */
  definite: 0,
  /** May have left its value, or nothing. */
  possible: 1,
} as const;

/** The operations of one thread. */
export class OperationLog {
  readonly entries: number[] = [];

  /** Notes an operation on `count` sectors that has ended without an error. */
  note(
    kind: (typeof Kind)[keyof typeof Kind],
    sector: number,
    count: number,
    value: number,
    begun: number,
    ended: number,
  ): void {
    this.entries.push(kind, sector, count, value, begun, ended);
  }
}

/** Fills sectors with a stamp. */
export function stamp(buffer: Uint8Array, value: number): void {
  new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.byteLength / 4).fill(value);
}

/** The stamp that every word of a sector holds, or -1 if they differ. */
export function stampOf(content: Uint32Array, sector: number): number {
  const words = sectorBytes / 4;
  const first = content[sector * words];
  for (let word = 1; word < words; word++) {
    if (content[sector * words + word] !== first) return -1;
  }
  return first;
}

/**
 * Judges the final content of a disk.
 *
 * @param content the whole disk
 * @param initial the stamp that each sector held at first
 * @returns what is wrong, at most ten findings
 */
export function judge(
  content: Uint32Array,
  initial: Uint32Array,
  logs: readonly (readonly number[])[],
): string[] {
  const sectors = initial.length;
  /** When the last definite operation on each sector began. */
  const lastBegun = new Float64Array(sectors).fill(-1);
  for (const log of logs) {
    for (let at = 0; at < log.length; at += fields) {
      if (log[at] !== Kind.definite) continue;
      for (let sector = log[at + 1]; sector < log[at + 1] + log[at + 2]; sector++) {
        lastBegun[sector] = Math.max(lastBegun[sector], log[at + 4]);
      }
    }
  }
  const explained = new Uint8Array(sectors);
  const held = new Float64Array(sectors);
  for (let sector = 0; sector < sectors; sector++) {
    held[sector] = stampOf(content, sector);
    if (lastBegun[sector] < 0 && held[sector] === initial[sector]) explained[sector] = 1;
  }
  for (const log of logs) {
    for (let at = 0; at < log.length; at += fields) {
      const [sector, count, value, , ended] = log.slice(at + 1, at + fields);
      for (let each = sector; each < sector + count; each++) {
        if (ended >= lastBegun[each] && held[each] === value) explained[each] = 1;
      }
    }
  }
  const wrong: string[] = [];
  for (let sector = 0; sector < sectors && wrong.length < 10; sector++) {
    if (explained[sector] === 1) continue;
    const found = held[sector] < 0 ? 'a mixture' : `stamp 0x${held[sector].toString(16)}`;
    wrong.push(`sector ${sector} holds ${found}; ${permitted(sector, initial, logs, lastBegun)}`);
  }
  return wrong;
}

function permitted(
  sector: number,
  initial: Uint32Array,
  logs: readonly (readonly number[])[],
  lastBegun: Float64Array,
): string {
  const values: string[] = [];
  if (lastBegun[sector] < 0) values.push(`0x${initial[sector].toString(16)} at first`);
  for (const [thread, log] of logs.entries()) {
    for (let at = 0; at < log.length; at += fields) {
      const [first, count, value, begun, ended] = log.slice(at + 1, at + fields);
      if (sector < first || sector >= first + count || ended < lastBegun[sector]) continue;
      values.push(`0x${value.toString(16)} by thread ${thread} from ${begun} to ${ended}`);
    }
  }
  return `permitted: ${values.join(', ') || 'nothing'}`;
}
