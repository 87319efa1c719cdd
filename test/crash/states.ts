/**
 * The states that a power cut can leave, given the changes that were pending: each shape of subset,
 * in several orders, and with one of them torn.
 */
import type { Random } from '../stress/random.js';
import type { Piece } from './file-state.js';

/** A change, or a part of one, of one of an image's files. */
export interface PlacedPiece extends Piece {
  /** 0 for the image file, 1 for its data file. */
  readonly file: 0 | 1;
}

/** Calls for each state: what of the pending changes is applied, in which order, and the shape. */
export type VisitState = (pieces: readonly PlacedPiece[], shape: string) => void;

const sectorSize = 512;
const pageSize = 4096;
/** Pending changes that are taken one by one; of more, the last ones and a drawn few. */
const mostSingled = 20;
const mostTears = 8;
const subsetsDrawn = 6;

/** Visits every state of a moment. */
export function visitStates(
  pending: readonly PlacedPiece[],
  random: Random,
  visit: VisitState,
): void {
  visit([], 'none');
  if (pending.length === 0) return;
  visit(pending, 'all');
  const singled = singledOut(pending.length, random);
  for (const index of singled) {
    visit(without(pending, index), 'one dropped');
    visit([pending[index]], 'one alone');
  }
  visitPrefixes(pending, 'prefix', visit);
  visitPrefixes(pending.toReversed(), 'prefix reversed', visit);
  visitPrefixes(shuffled(pending, random), 'prefix reordered', visit);
  for (let count = 0; count < subsetsDrawn && pending.length > 2; count++) {
    const chosen = shuffled(pending, random).slice(0, 2 + random.below(pending.length - 2));
    visit(chosen, 'subset drawn');
  }
  for (const index of singled) visitTorn(pending, index, visit);
}

function visitPrefixes(pieces: readonly PlacedPiece[], shape: string, visit: VisitState): void {
  // Long prefixes differ little from each other.
  const step = Math.ceil(pieces.length / 24);
  for (let end = 1; end < pieces.length; end += step) visit(pieces.slice(0, end), shape);
}

function visitTorn(pending: readonly PlacedPiece[], index: number, visit: VisitState): void {
  const piece = pending[index];
  if (piece.kind === 'truncate' || piece.kind === 'allocate') return;
  const others = without(pending, index);
  for (const tear of tears(piece)) {
    const head = { ...piece, end: tear };
    const tail = { ...piece, start: tear };
    for (const part of [head, tail]) {
      visit([part], 'torn, alone');
      if (others.length > 0) visit([...others, part], 'torn, with the others');
    }
  }
}

/** Where a piece can be torn: at sectors of the file, and at pages. */
function tears({ offset, start, end }: PlacedPiece): readonly number[] {
  const sectors = multiples(offset, start, end, sectorSize);
  if (sectors.length <= mostTears) return sectors;
  const pages = multiples(offset, start, end, pageSize);
  return [...new Set([...sectors.slice(0, 2), ...pages.slice(0, mostTears), sectors.at(-1)!])];
}

function multiples(offset: number, start: number, end: number, unit: number): readonly number[] {
  const found: number[] = [];
  const first = (Math.floor((offset + start) / unit) + 1) * unit;
  for (let at = first - offset; at < end; at += unit) found.push(at);
  return found;
}

function singledOut(count: number, random: Random): readonly number[] {
  const all = Array.from({ length: count }, (_, index) => index);
  if (count <= mostSingled) return all;
  const recent = all.slice(-mostSingled / 2);
  return [...shuffled(all.slice(0, -mostSingled / 2), random).slice(0, mostSingled / 2), ...recent];
}

function without<Item>(items: readonly Item[], index: number): Item[] {
  return [...items.slice(0, index), ...items.slice(index + 1)];
}

function shuffled<Item>(items: readonly Item[], random: Random): Item[] {
  const order = [...items];
  for (let at = order.length - 1; at > 0; at--) {
    const other = random.below(at + 1);
    [order[at], order[other]] = [order[other], order[at]];
  }
  return order;
}
