/** The feature name table, by which an unknown feature is named (specification, same heading). */
import { decodeText } from './stored-text.js';

const entrySize = 48;
const kinds = { incompatible: 0, compatible: 1, autoclear: 2 } as const;

/** Kinds of feature bits. */
export type FeatureKind = keyof typeof kinds;

const known: readonly (readonly [FeatureKind, number, string])[] = [
  ['incompatible', 0, 'dirty bit'],
  ['incompatible', 1, 'corrupt bit'],
  ['incompatible', 2, 'external data file'],
  ['incompatible', 3, 'compression type'],
  ['incompatible', 4, 'extended L2 entries'],
  ['compatible', 0, 'lazy refcounts'],
  ['autoclear', 0, 'bitmaps'],
  ['autoclear', 1, 'raw external data'],
];

/** The table written into new images: every feature this engine knows. */
export function knownFeatureTable(): Uint8Array {
  const bytes = new Uint8Array(known.length * entrySize);
  known.forEach(([kind, bit, name], index) => {
    bytes[index * entrySize] = kinds[kind];
    bytes[index * entrySize + 1] = bit;
    bytes.set(new TextEncoder().encode(name), index * entrySize + 2);
  });
  return bytes;
}

/** The names an image's table gives to the bits of a mask; bits it does not name come as a number. */
export function nameFeatures(
  table: Uint8Array | undefined,
  kind: FeatureKind,
  mask: bigint,
): string[] {
  const names: string[] = [];
  let nameless = mask;
  // The last entry may be shorter than the others.
  for (let offset = 0; table && offset + 2 <= table.length; offset += entrySize) {
    const bit = 1n << BigInt(table[offset + 1] & 63);
    if (table[offset] !== kinds[kind] || (nameless & bit) === 0n) continue;
    names.push(decodeText(table.subarray(offset + 2, offset + entrySize)));
    nameless &= ~bit;
  }
  if (nameless !== 0n) names.push(`Unknown ${kind} feature: ${nameless.toString(16)}`);
  return names;
}
