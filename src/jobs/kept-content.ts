/**
 * Writing into an image what would look different above another one: of what it does not hold itself, the
 * granules that differ in what lies below it now and what is to lie below it.
 */
import type { Image } from '../image/api/image.js';
import type { LongOperationOptions } from '../image/api/long-operation.js';
import { extentsOfLayers, granuleOf, zeroesHide } from '../image/graph/layers.js';
import { inOrder } from '../image/streams/in-order.js';
import { alignedBuffer } from '../native/aligned-buffer.js';
import { isZero } from '../native/zero-scan.js';
import { blockStatus } from './block-status.js';
import { piecesAtOnce } from './pieces-at-once.js';
import { Walk } from './zip-extents.js';

/** Bytes that are compared at a time, unless a cluster is larger. */
const chunkBytes = 1024 * 1024;

/** Whose content is kept. */
export interface KeptContent extends LongOperationOptions {
  readonly image: Image;
  /** Below it now, and afterwards; undefined for nothing, which reads as zeroes. */
  readonly before: Image | undefined;
  readonly after: Image | undefined;
  /** How many images of the chain, from this one on, stand on the one that is below afterwards; 1 if it is no part of it. */
  readonly layers: number;
  /** Whether what is written is compressed. */
  readonly compress: boolean;
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/** What a range reads as now, and would read as. */
interface Contents {
  readonly before: Uint8Array;
  readonly after: Uint8Array;
}

/** A range that was read. */
interface Compared extends Range, Contents {
  /** What its contents lie in. */
  readonly memory: Contents;
}

/** Does it; what was written is not flushed. */
export async function keepContent(plan: KeptContent): Promise<void> {
  const { image, compress, signal, onProgress } = plan;
  const granule = granuleOf(image);
  const { clusterSize = granule } = image;
  const unit = compress ? clusterSize : granule;
  const mostBytes = Math.max(chunkBytes, clusterSize);
  const parallel = piecesAtOnce(2 * mostBytes, false);
  const spare: Contents[] = Array.from({ length: parallel }, () => ({
    before: alignedBuffer(mostBytes),
    after: alignedBuffer(mostBytes),
  }));
  const read = async ({ start, end }: Range): Promise<Compared> => {
    const memory = spare.pop()!;
    const before = memory.before.subarray(0, end - start);
    const after = memory.after.subarray(0, end - start);
    await Promise.all([
      readPadded(plan.before, before, start),
      readPadded(plan.after, after, start),
    ]);
    return { start, end, before, after, memory };
  };
  for await (const piece of inOrder(pieces(plan, unit, mostBytes), parallel, read)) {
    signal?.throwIfAborted();
    const writes = differing(piece, unit).map((range) => write(plan, piece, range, unit));
    await settled(writes);
    spare.push(piece.memory);
    onProgress?.({ doneBytes: piece.end, totalBytes: image.size });
  }
  onProgress?.({ doneBytes: image.size, totalBytes: image.size });
}

/** Fills a buffer from an image, and with zeroes beyond its end. */
async function readPadded(
  image: Image | undefined,
  buffer: Uint8Array,
  offset: number,
): Promise<void> {
  const length = Math.max(0, Math.min(buffer.length, (image?.size ?? 0) - offset));
  buffer.fill(0, length);
  if (length > 0) await image!.read(buffer.subarray(0, length), offset);
}

/** What has to be compared, in stretches of so many bytes at most that end at multiples of it. */
async function* pieces(plan: KeptContent, unit: number, mostBytes: number): AsyncGenerator<Range> {
  const { before, after, signal } = plan;
  const walks = [before, after].map((image) => image && new Walk(blockStatus(image, signal)));
  try {
    for await (const { start, end } of missing(plan)) {
      for (let at = start; at < end;) {
        const zeroEnd = await commonZeroEnd(walks, at, end);
        const skipped = zeroEnd === end ? end : Math.floor(zeroEnd / unit) * unit;
        if (skipped > at) {
          at = skipped;
          continue;
        }
        const stop = Math.min(end, (Math.floor(at / mostBytes) + 1) * mostBytes);
        yield { start: at, end: stop };
        at = stop;
      }
    }
  } finally {
    for (const walk of walks) await walk?.end();
  }
}

/** Up to where, from an offset on, all are known to be zeroes. */
async function commonZeroEnd(
  walks: readonly (Walk | undefined)[],
  offset: number,
  end: number,
): Promise<number> {
  let zeroEnd = end;
  for (const walk of walks) {
    const extent = await walk?.at(offset);
    if (extent === undefined) continue;
    const isNothing = extent.zero || !extent.data;
    zeroEnd = Math.min(zeroEnd, isNothing ? extent.start + extent.length : offset);
  }
  return zeroEnd;
}

/** Ranges of whole granules that neither the image holds nor what stays below it. */
async function* missing({ image, layers, signal }: KeptContent): AsyncGenerator<Range> {
  const granule = granuleOf(image);
  let last: Range | undefined;
  for await (const extent of extentsOfLayers(image, layers, signal)) {
    const { start, length, depth, present } = extent;
    const isHere = depth === 0 && present;
    const isBelow = layers > 1 && depth === layers - 1 && !present;
    if (isHere || isBelow) continue;
    const from = Math.floor(start / granule) * granule;
    const end = Math.min(image.size, Math.ceil((start + length) / granule) * granule);
    if (last !== undefined && from <= last.end) last = { start: last.start, end };
    else {
      if (last !== undefined) yield last;
      last = { start: from, end };
    }
  }
  if (last !== undefined) yield last;
}

/** The stretches of a piece, of whole units, that differ. */
function differing({ start, end, before, after }: Compared, unit: number): readonly Range[] {
  if (Buffer.compare(before, after) === 0) return [];
  const ranges: { start: number; end: number }[] = [];
  for (let at = start; at < end;) {
    const stop = Math.min(end, (Math.floor(at / unit) + 1) * unit);
    const [from, to] = [at - start, stop - start];
    if (Buffer.compare(before.subarray(from, to), after.subarray(from, to)) !== 0) {
      const last = ranges.at(-1);
      if (last?.end === at) last.end = stop;
      else ranges.push({ start: at, end: stop });
    }
    at = stop;
  }
  return ranges;
}

async function write(
  { image, compress }: KeptContent,
  { start, before }: Compared,
  range: Range,
  unit: number,
): Promise<void> {
  const bytes = before.subarray(range.start - start, range.end - start);
  if (zeroesHide(image) && isZero(bytes)) {
    await image.writeZeroes(range.start, bytes.length);
    return;
  }
  if (!compress) {
    await image.write(bytes, range.start);
    return;
  }
  const writes: Promise<void>[] = [];
  for (let at = range.start; at < range.end;) {
    const stop = Math.min(range.end, (Math.floor(at / unit) + 1) * unit);
    const part = bytes.subarray(at - range.start, stop - range.start);
    // A cluster of which the image holds a part cannot be compressed.
    const isWhole = at % unit === 0 && (part.length === unit || stop === image.size);
    writes.push(isWhole ? image.writeCompressed(part, at) : image.write(part, at));
    at = stop;
  }
  await settled(writes);
}

/** Waits for every write, since their buffer is used again, and then fails as the first one did. */
async function settled(writes: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(writes);
  await Promise.all(writes);
}
