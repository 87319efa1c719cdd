/** What block status tells of a disk: the metadata contexts, and the stretches in them. */
import type { Image } from '../../image/api/image.js';
import type { Extent } from '../../image/api/reports.js';
import { AllocationState } from '../../nbd/protocol.js';

/** One metadata context. */
export interface MetadataContext {
  /** What it is called in replies. */
  readonly id: number;
  readonly name: string;
  /** The state of an extent of the map, or the bitmap that has the states. */
  readonly source: ((extent: Extent) => number) | { readonly bitmap: string };
}

/** A stretch of the disk, and its state in a context. */
export interface Stretch {
  /** Bytes. */
  length: number;
  readonly state: number;
}

/** Those of every image. */
const ofEachImage: readonly MetadataContext[] = [
  {
    id: 1,
    name: 'base:allocation',
    source: ({ data, zero }) =>
      (data ? 0 : AllocationState.hole) | (zero ? AllocationState.zero : 0),
  },
  {
    id: 2,
    name: 'qemu:allocation-depth',
    source: ({ present, depth }) => (present ? depth + 1 : 0),
  },
];

/** The contexts of an export, with the bitmaps that it shows. */
export function contextsOf(bitmaps: readonly string[]): readonly MetadataContext[] {
  const shown = bitmaps.map((bitmap, index) => ({
    id: ofEachImage.length + 1 + index,
    name: `qemu:dirty-bitmap:${bitmap}`,
    source: { bitmap },
  }));
  return [...ofEachImage, ...shown];
}

/**
 * The contexts that a query means.
 *
 * @param isList whether it may name a namespace, such as `base:` or `qemu:dirty-bitmap:`
 */
export function matchingContexts(
  contexts: readonly MetadataContext[],
  query: string,
  isList: boolean,
): readonly MetadataContext[] {
  const isNamespace = isList && query.endsWith(':');
  return contexts.filter(({ name }) => name === query || (isNamespace && name.startsWith(query)));
}

/**
 * The stretches of a range in each context, from its begin on; at least one of each, and not all of them
 * if they are many.
 *
 * @param most stretches of each context
 */
export async function stretchesOf(
  image: Image,
  contexts: readonly MetadataContext[],
  range: { readonly offset: number; readonly length: number },
  most: number,
): Promise<readonly (readonly Stretch[])[]> {
  const lists = contexts.map(() => new StretchList(most));
  const ofMap = contexts.flatMap(({ source }, index) =>
    typeof source === 'function' ? [{ stateOf: source, list: lists[index] }] : [],
  );
  if (ofMap.length > 0) {
    for await (const extent of image.map(range)) {
      for (const { stateOf, list } of ofMap) list.add(extent.length, stateOf(extent));
      if (ofMap.every(({ list }) => list.isFull)) break;
    }
  }
  for (const [index, { source }] of contexts.entries()) {
    if (typeof source === 'function') continue;
    for await (const { length, dirty } of image.bitmap(source.bitmap, range)) {
      lists[index].add(length, dirty ? 1 : 0);
      if (lists[index].isFull) break;
    }
  }
  return lists.map(({ stretches }) => stretches);
}

/** Stretches that follow one another; those of one state are joined. */
class StretchList {
  readonly stretches: Stretch[] = [];
  /** Whether one more has come than there may be. */
  isFull = false;
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  add(length: number, state: number): void {
    if (this.isFull) return;
    const last = this.stretches.at(-1);
    if (last?.state === state) last.length += length;
    else if (this.stretches.length < this.#most) this.stretches.push({ length, state });
    else this.isFull = true;
  }
}
