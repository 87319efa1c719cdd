/** Malformed images: a fixture with a few bytes changed, by a mutator that knows the format's fields. */
import type { Random } from '../stress/random.js';

/** Bytes put over a fixture's. */
export interface Edit {
  readonly offset: number;
  /** In hexadecimal. */
  readonly bytes: string;
}

/** One malformed image. */
export interface Mutant {
  /** Name of the fixture it is made from. */
  readonly fixture: string;
  readonly edits: readonly Edit[];
  /** Bytes the file is cut to, if it is. */
  readonly cut?: number;
}

/** The bytes of a mutant. */
export function applyMutant(original: Uint8Array, { edits, cut }: Mutant): Uint8Array {
  const bytes = Uint8Array.from(original.subarray(0, cut));
  for (const { offset, bytes: text } of edits) {
    const patch = Buffer.from(text, 'hex');
    if (offset < bytes.length) bytes.set(patch.subarray(0, bytes.length - offset), offset);
  }
  return bytes;
}

/** A field of the format: where it lies, and how wide it is in bytes. */
interface Field {
  readonly offset: number;
  readonly width: 1 | 4 | 8;
}

const headerWords = [4, 16, 20, 32, 36, 56, 60, 96, 100];
const headerLongs = [8, 24, 40, 48, 64, 72, 80, 88];

/** Changes one to three fields of a fixture, or cuts it. */
export function mutate(fixture: string, original: Uint8Array, random: Random): Mutant {
  const edits: Edit[] = [];
  const count = 1 + random.below(3);
  const view = new DataView(original.buffer, original.byteOffset, original.byteLength);
  for (let index = 0; index < count; index++) {
    const field = chooseField(view, random);
    if (field.offset + field.width > original.length) continue;
    edits.push({ offset: field.offset, bytes: newValue(view, field, random) });
  }
  if (random.chance(0.05)) return { fixture, edits, cut: random.below(original.length + 1) };
  return { fixture, edits };
}

/** What the header says of where tables lie; of any file, so nothing of it may be believed. */
function layout(view: DataView) {
  const long = (offset: number): number => Number(view.getBigUint64(offset));
  const clusterBits = Math.min(21, Math.max(9, view.getUint32(20)));
  return {
    clusterSize: 2 ** clusterBits,
    size: long(24),
    l1Entries: view.getUint32(36),
    l1Offset: long(40),
    refcountTableOffset: long(48),
    snapshotsOffset: long(64),
    headerLength: view.getUint32(4) === 3 ? view.getUint32(100) : 72,
  };
}

function chooseField(view: DataView, random: Random): Field {
  const { l1Offset, l1Entries, refcountTableOffset, snapshotsOffset, headerLength, clusterSize } =
    layout(view);
  const inTable = (start: number, entries: number): Field => ({
    offset: start + 8 * random.below(Math.max(1, Math.min(entries, 64))),
    width: 8,
  });
  switch (random.below(9)) {
    case 0:
      return { offset: random.pick(headerWords), width: 4 };
    case 1:
      return { offset: random.pick(headerLongs), width: 8 };
    case 2:
      return { offset: headerLength + 4 * random.below(24), width: 4 };
    case 3:
      return inTable(l1Offset, l1Entries);
    case 4:
    case 5: {
      const table = pointerAt(view, inTable(l1Offset, l1Entries).offset);
      return inTable(table, clusterSize / 8);
    }
    case 6:
      return inTable(refcountTableOffset, 8);
    case 7: {
      const block = pointerAt(view, inTable(refcountTableOffset, 2).offset);
      return inTable(block, 16);
    }
    default:
      return snapshotsOffset > 0 && random.chance(0.7)
        ? { offset: snapshotsOffset + 4 * random.below(24), width: 4 }
        : { offset: random.below(view.byteLength), width: 1 };
  }
}

/** The offset part of a table entry. */
function pointerAt(view: DataView, offset: number): number {
  if (offset + 8 > view.byteLength) return 0;
  const high = view.getUint32(offset) & 0x00ffffff;
  return high * 2 ** 32 + ((view.getUint32(offset + 4) & ~511) >>> 0);
}

function newValue(view: DataView, field: Field, random: Random): string {
  const { offset, width } = field;
  if (width === 1) return hex(BigInt(random.below(256)), 1);
  const old = width === 4 ? BigInt(view.getUint32(offset)) : view.getBigUint64(offset);
  return hex(interesting(old, view, random), width);
}

function interesting(old: bigint, view: DataView, random: Random): bigint {
  const { clusterSize, l1Offset, refcountTableOffset } = layout(view);
  const cluster = BigInt(clusterSize);
  const end = BigInt(view.byteLength);
  const somewhere = BigInt(random.below(Math.ceil(view.byteLength / clusterSize))) * cluster;
  return random.pick([
    () => 0n,
    () => 1n,
    () => old + 1n,
    () => old - 1n,
    () => old ^ (1n << BigInt(random.below(64))),
    () => old ^ (1n << BigInt(random.below(10))),
    () => old ^ (1n << 63n),
    () => old ^ (1n << 62n),
    () => 512n,
    () => cluster,
    () => end,
    () => end - 512n,
    () => end + cluster,
    () => BigInt(l1Offset),
    () => BigInt(refcountTableOffset),
    () => somewhere,
    () => somewhere | (1n << 63n),
    () => somewhere | (1n << 63n) | 1n,
    () => somewhere + 512n,
    () => (1n << 56n) - 512n,
    () => (1n << 63n) - 1n,
    () => (1n << 64n) - 1n,
    () => 0xffffffffn,
    () => BigInt(random.below(65536)),
  ])();
}

function hex(value: bigint, width: number): string {
  return BigInt.asUintN(width * 8, value)
    .toString(16)
    .padStart(width * 2, '0');
}
