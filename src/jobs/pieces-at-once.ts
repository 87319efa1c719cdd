/** How many pieces of a disk are copied at a time by somebody who was not told. */
import { availableParallelism } from 'node:os';
import { memoryLimit } from '../native/host-memory.js';

/** So many keep a disk busy that takes a while to answer. */
const mostPieces = 16;

/** Of the memory there is, the part that pieces may hold. */
const memoryShare = 1 / 4;

/**
 * Pieces to have under way.
 *
 * @param pieceBytes memory of each
 * @param compress whether they are compressed: more than the processors can deal with only wait
 */
export function piecesAtOnce(pieceBytes: number, compress: boolean): number {
  const useful = compress ? Math.min(mostPieces, availableParallelism() + 2) : mostPieces;
  const affordable = Math.floor((memoryLimit() * memoryShare) / pieceBytes);
  return Math.max(1, Math.min(useful, affordable));
}
