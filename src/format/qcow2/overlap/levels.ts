/**
 * The metadata structures that a write must not hit, and how many of them are looked at: QEMU's
 * `overlap-check`.
 */

/** Structures, as bits of a mask. */
export const Structure = {
  header: 1,
  activeL1: 2,
  refcountTable: 4,
  snapshotTable: 8,
  bitmapDirectory: 16,
  activeL2: 32,
  refcountBlock: 64,
  inactiveL1: 128,
  inactiveL2: 256,
} as const;

/** How each structure is named in messages. */
const names: readonly (readonly [mask: number, name: string])[] = [
  [Structure.header, 'the header'],
  [Structure.activeL1, 'the active L1 table'],
  [Structure.activeL2, 'an active L2 table'],
  [Structure.refcountBlock, 'a refcount block'],
  [Structure.refcountTable, 'the refcount table'],
  [Structure.snapshotTable, 'the snapshot table'],
  [Structure.inactiveL1, "a snapshot's L1 table"],
  [Structure.inactiveL2, "a snapshot's L2 table"],
  [Structure.bitmapDirectory, 'the bitmap directory'],
];

/** The name of the first structure of a mask. */
export function structureName(mask: number): string {
  return names.find(([structure]) => (mask & structure) !== 0)?.[1] ?? 'metadata';
}

/** How many structures are looked at before a write. */
export type OverlapLevel = 'none' | 'constant' | 'cached' | 'all';

const constant =
  Structure.header |
  Structure.activeL1 |
  Structure.refcountTable |
  Structure.snapshotTable |
  Structure.bitmapDirectory;
const cached = constant | Structure.activeL2 | Structure.refcountBlock | Structure.inactiveL1;

/** The structures of each level. */
export const structuresOfLevel: Readonly<Record<OverlapLevel, number>> = {
  none: 0,
  constant,
  cached,
  all: cached | Structure.inactiveL2,
};
