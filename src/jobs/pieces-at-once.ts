/** How many pieces of a disk are copied at a time by somebody who was not told. */
import { affordableCount, usefulCodecRuns } from '../native/host-capacity.js';

/** So many keep a disk busy that takes a while to answer. */
const mostPieces = 16;

/** Of the memory there is, the part that pieces may hold. */
const memoryShare = 1 / 4;

/**
 * Pieces to have under way.
 *
 * @param pieceBytes memory of each
 */
export function piecesAtOnce(pieceBytes: number, compress: boolean): number {
  const useful = compress ? usefulCodecRuns() : mostPieces;
  return Math.min(mostPieces, useful, affordableCount(memoryShare, pieceBytes));
}
