/**
 * Requests on several buffers: pieces that the format can do as one request of the host, and others, which
 * go through one buffer.
 */
import type { FormatQueue } from '../../format/driver.js';
import { alignedBuffer } from '../../native/aligned-buffer.js';
import { gather, scatter } from '../../storage/vector.js';

/** Bytes of a piece at most: what goes through a buffer of ours takes no more memory than that at a time. */
const pieceBytes = 1024 * 1024;
/** Buffers of a request of the host at most (IOV_MAX of readv(2)). */
const mostParts = 1024;

/** Buffers that follow each other, and where they lie on the disk. */
interface Piece {
  readonly parts: readonly Uint8Array[];
  /** Bytes of all of them. */
  readonly length: number;
  /** Guest offset in bytes. */
  readonly offset: number;
}

/** Fills buffers one after the other from a guest offset in bytes. */
export function readVector(
  queue: FormatQueue,
  buffers: readonly Uint8Array[],
  offset: number,
): Promise<void> {
  return allOf(buffers, offset, (piece) => {
    const { parts, length } = piece;
    if (parts.length === 1) return queue.read(parts[0], piece.offset);
    return queue.readVector?.(parts, length, piece.offset) ?? readThrough(queue, piece);
  });
}

/** Writes buffers one after the other at a guest offset in bytes. */
export function writeVector(
  queue: FormatQueue,
  buffers: readonly Uint8Array[],
  offset: number,
): Promise<void> {
  return allOf(buffers, offset, (piece) => {
    const { parts, length } = piece;
    if (parts.length === 1) return queue.write(parts[0], piece.offset);
    return (
      queue.writeVector?.(parts, length, piece.offset) ??
      queue.write(gathered(parts, length), piece.offset)
    );
  });
}

/** The bytes of several buffers in one. @param length of all of them */
export function gathered(buffers: readonly Uint8Array[], length: number): Uint8Array {
  const whole = alignedBuffer(length);
  gather(buffers, whole);
  return whole;
}

async function readThrough(queue: FormatQueue, { parts, length, offset }: Piece): Promise<void> {
  const whole = alignedBuffer(length);
  await queue.read(whole, offset);
  scatter(whole, parts);
}

/** Does pieces side by side; resolves or rejects when nothing is under way any more. */
async function allOf(
  buffers: readonly Uint8Array[],
  offset: number,
  perform: (piece: Piece) => Promise<void>,
): Promise<void> {
  const pieces = piecesOf(buffers, offset);
  if (pieces.length === 1) {
    await perform(pieces[0]);
    return;
  }
  const ended = await Promise.allSettled(pieces.map(perform));
  for (const each of ended) if (each.status === 'rejected') throw each.reason as Error;
}

/** Whole buffers for as long as they fit into a piece; a larger one is a piece by itself. */
function piecesOf(buffers: readonly Uint8Array[], offset: number): Piece[] {
  const pieces: Piece[] = [];
  let parts: Uint8Array[] = [];
  let length = 0;
  let at = offset;
  const end = (): void => {
    if (parts.length > 0) pieces.push({ parts, length, offset: at });
    at += length;
    parts = [];
    length = 0;
  };
  for (const buffer of buffers) {
    if (buffer.length === 0) continue;
    if (length + buffer.length > pieceBytes || parts.length === mostParts) end();
    parts.push(buffer);
    length += buffer.length;
  }
  end();
  return pieces;
}
