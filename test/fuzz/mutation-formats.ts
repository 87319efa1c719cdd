/** Malformed images of the other formats: where their fields lie, and the sums that have to fit again. */
import { crc32cAround } from '../../src/format/vhdx/crc32c.js';
import type { Random } from '../stress/random.js';
import type { Edit, Mutant } from './mutation.js';

/** Bytes that fields lie in: from where, and how many; a negative begin counts from the end. */
type Region = readonly [start: number, length: number];

const kib = 1024;
const mib = 1024 * kib;

/** By the ending of a fixture's name. */
const regions: Readonly<Record<string, readonly Region[]>> = {
  '.vmdk': [
    [0, 80],
    [512, 1024],
    [10 * kib, kib],
    [20 * 512, 2 * kib],
    [-1536, 1536],
  ],
  '.vhdx': [
    [64 * kib, 80],
    [128 * kib, 80],
    [192 * kib, 96],
    [256 * kib, 96],
    [mib, 4 * kib],
    [2 * mib, 256],
    [2 * mib + 64 * kib, 64],
    [3 * mib, 64],
  ],
  '.vhd': [
    [0, 88],
    [512, 88],
    [1536, 64],
    [2 * kib, 512],
    [-512, 88],
  ],
  '.vdi': [
    [0, 80],
    [256, 256],
    [512, 64],
  ],
  '.qed': [
    [0, 80],
    [64 * kib, 64],
    [5 * 64 * kib, 64],
  ],
  '.qcow': [
    [0, 48],
    [48, 64],
    [4 * kib, 4 * kib],
  ],
  '.parallels': [
    [0, 64],
    [64, 64],
  ],
  // The trailer, and before it the tables of chunks, in the resource fork.
  '.dmg': [
    [-512, 512],
    [-2048, 1536],
  ],
  '.bochs': [
    [0, 96],
    [512, 32],
    [528, 64],
  ],
  '.cloop': [
    [128, 8],
    [136, 32],
  ],
};

/** Whether fixtures of that name are of a format that is known here. */
export function isOtherFormat(fixture: string): boolean {
  return endingOf(fixture) in regions;
}

/** Changes one to three fields of a fixture, or cuts it. */
export function mutateOther(fixture: string, original: Uint8Array, random: Random): Mutant {
  const bytes = Uint8Array.from(original);
  const view = new DataView(bytes.buffer);
  const edits: Edit[] = [];
  const note = (offset: number, width: number): void => {
    const text = Buffer.from(bytes.subarray(offset, offset + width)).toString('hex');
    edits.push({ offset, bytes: text });
  };
  for (let count = 1 + random.below(3); count > 0; count--) {
    const [start, length] = random.pick(regions[endingOf(fixture)]);
    const width = random.pick([1, 4, 4, 8, 8]);
    const begin = start < 0 ? Math.max(0, bytes.length + start) : start;
    const offset = begin + width * random.below(Math.max(1, Math.floor(length / width)));
    if (offset + width > bytes.length) continue;
    const isLittle = random.chance(0.5);
    if (width === 1) bytes[offset] = random.below(256);
    else if (width === 4) {
      const old = BigInt(view.getUint32(offset, isLittle));
      view.setUint32(offset, Number(BigInt.asUintN(32, interesting(old, bytes, random))), isLittle);
    } else {
      const old = view.getBigUint64(offset, isLittle);
      view.setBigUint64(offset, BigInt.asUintN(64, interesting(old, bytes, random)), isLittle);
    }
    note(offset, width);
  }
  if (random.chance(0.8)) for (const offset of mend(fixture, bytes)) note(offset, 4);
  if (random.chance(0.05)) return { fixture, edits, cut: random.below(bytes.length + 1) };
  return { fixture, edits };
}

/** Makes the sums of headers fit again. @returns where each of them lies */
function mend(fixture: string, bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer);
  const at: number[] = [];
  if (endingOf(fixture) === '.vhdx') {
    for (const [start, length] of [
      [64 * kib, 4 * kib],
      [128 * kib, 4 * kib],
      [192 * kib, 64 * kib],
      [256 * kib, 64 * kib],
    ]) {
      const sum = crc32cAround([bytes.subarray(start, start + length)], 4);
      view.setUint32(start + 4, sum, true);
      at.push(start + 4);
    }
  }
  if (endingOf(fixture) === '.vhd') {
    for (const [start, length, place] of [
      [0, 512, 64],
      [512, 1024, 36],
      [bytes.length - 512, 512, 64],
    ]) {
      view.setUint32(start + place, 0);
      let sum = 0;
      for (const byte of bytes.subarray(start, start + length)) sum += byte;
      view.setUint32(start + place, ~sum >>> 0);
      at.push(start + place);
    }
  }
  return at;
}

function interesting(old: bigint, bytes: Uint8Array, random: Random): bigint {
  const end = BigInt(bytes.length);
  return random.pick([
    () => 0n,
    () => 1n,
    () => 2n,
    () => old + 1n,
    () => old - 1n,
    () => old * 2n,
    () => old ^ (1n << BigInt(random.below(64))),
    () => old ^ (1n << BigInt(random.below(16))),
    () => end,
    () => end / 512n,
    () => end / 512n + 1n,
    () => BigInt(random.below(bytes.length)),
    () => BigInt(random.below(Math.ceil(bytes.length / 512))),
    () => 0x7fffffffn,
    () => 0xfffffffen,
    () => 0xffffffffn,
    () => (1n << 53n) - 1n,
    () => (1n << 63n) - 512n,
    () => (1n << 64n) - 1n,
    () => BigInt(random.below(65536)),
  ])();
}

function endingOf(fixture: string): string {
  return fixture.slice(fixture.lastIndexOf('.'));
}
