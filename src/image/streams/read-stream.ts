/** The content of a disk as one of Node's streams, read ahead with several requests. */
import { Readable } from 'node:stream';
import { nameMemoryError, problemWith } from '../../errors.js';
import type { ReadStreamOptions } from '../api/image.js';
import type { Extent } from '../api/reports.js';
import { inOrder } from './in-order.js';
import {
  type OptionRules,
  abortSignal,
  checkOptions,
  wholeNumber,
} from '../options/option-check.js';
import { destroyOnAbort } from './abort.js';

/** What a stream reads from. */
export interface StreamSource {
  readonly filename: string;
  /** Bytes. */
  readonly size: number;
  read(buffer: Uint8Array, offset: number): Promise<void>;
  /** How a range is stored; undefined where reading by itself costs nothing for what is not stored. */
  readonly map: ((offset: number, length: number) => AsyncIterable<Extent>) | undefined;
}

const rules: OptionRules<ReadStreamOptions> = {
  start: wholeNumber(0),
  end: (value) => (value === Infinity ? undefined : wholeNumber(0)(value)),
  highWaterMark: wholeNumber(1),
  signal: abortSignal,
};

const defaultAheadBytes = 4 * 1024 * 1024;
/** More in one request makes nothing faster. */
const mostPieceBytes = 1024 * 1024;
/** So many requests keep a disk busy that takes a while to answer. */
const mostRequests = 16;
/** How far ahead it is asked what is stored: short enough that little changes before it is read. */
const mappedBytes = 16 * 1024 * 1024;

/** A part of the disk that is handed out whole. */
interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly isZero: boolean;
}

/** See `RequestTarget.createReadStream`. */
export function createReadStream(source: StreamSource, options: ReadStreamOptions): Readable {
  const { filename, size } = source;
  checkOptions(options, rules, filename);
  const { start = 0, end = Infinity, highWaterMark = defaultAheadBytes, signal } = options;
  const stop = end === Infinity ? size : end + 1;
  if (start > stop || stop > size || end < start) {
    throw problemWith(
      'ERR_COWHERD_OUT_OF_RANGE',
      filename,
      `bytes ${start} to ${end} do not lie in this order within the disk of ${size} bytes`,
      { offset: start },
    );
  }
  const pieceBytes = Math.min(mostPieceBytes, Math.ceil(highWaterMark / 4));
  const parallel = Math.min(mostRequests, Math.ceil(highWaterMark / pieceBytes));
  const content = inOrder(pieces(source, start, stop, pieceBytes), parallel, (piece) =>
    readPiece(source, piece),
  );
  // The pieces that are under way are what is read ahead; one more waits in the stream. By so small a mark
  // web streams made of it keep to it too: they count pieces where Node counts bytes.
  const stream = Readable.from(content, { objectMode: false, highWaterMark: 1 });
  destroyOnAbort(stream, signal, filename);
  return stream;
}

async function readPiece(
  source: StreamSource,
  { offset, length, isZero }: Piece,
): Promise<Uint8Array> {
  try {
    if (isZero) return Buffer.alloc(length);
    const buffer = Buffer.allocUnsafeSlow(length);
    await source.read(buffer, offset);
    return buffer;
  } catch (error) {
    throw nameMemoryError(error, source.filename);
  }
}

async function* pieces(
  { map }: StreamSource,
  start: number,
  stop: number,
  pieceBytes: number,
): AsyncGenerator<Piece> {
  for (let at = start; at < stop;) {
    const end = Math.min(stop, at + mappedBytes);
    const stored = map === undefined ? [{ start: at, end }] : await storedIn(map(at, end - at));
    for (let next = 0; at < end;) {
      const length = Math.min(pieceBytes, end - at);
      while (next < stored.length && stored[next].end <= at) next++;
      const isZero = next === stored.length || stored[next].start >= at + length;
      yield { offset: at, length, isZero };
      at += length;
    }
  }
}

/** The ranges of what is stored, ascending; end is exclusive. */
async function storedIn(
  extents: AsyncIterable<Extent>,
): Promise<{ readonly start: number; end: number }[]> {
  const ranges: { readonly start: number; end: number }[] = [];
  for await (const { start, length, zero } of extents) {
    const last = ranges.at(-1);
    if (zero) continue;
    if (last?.end === start) last.end += length;
    else ranges.push({ start, end: start + length });
  }
  return ranges;
}
