/**
 * Reading a stream-optimized image once, from its begin to its end: each grain says which it is (Virtual Disk
 * Format 5.0, "Stream-Optimized Compressed Sparse Extents"), so that no table is needed.
 */
import { maxChunkBytes, maxVmdkDescriptorBytes } from '../../limits.js';
import type { ByteStream } from '../../storage/stream/byte-stream.js';
import { damagedImage, unsupportedImage } from '../failures.js';
import type { StreamedDisk, StreamedPiece } from '../streamed.js';
import { descriptorText, noParent, parseIdentity } from './descriptor.js';
import { inflateGrain } from './grain.js';
import { sectorBytes } from './layout.js';
import {
  type HostedHeader,
  decodeHostedHeader,
  hostedExtent,
  hostedMagic,
  uint64,
} from './sparse-header.js';
import { grainMarkerBytes, wholeSectors } from './stream-markers.js';

/** Bytes of the disk that are inflated at once, and how many times as much is under way. */
const batchBytes = 1024 * 1024;
const mostBatches = 4;
/** Bytes at the begin that are looked at for the descriptor. */
const beginBytes = 64 * 1024;

/** A grain as it stands in the stream. */
interface Grain {
  /** Guest offset in bytes. */
  readonly offset: number;
  readonly compressed: Uint8Array;
  /** Where it stands in the stream, in bytes. */
  readonly at: number;
}

/** What of the header is needed. */
interface Disk {
  readonly size: number;
  readonly grainBytes: number;
  /** Bytes before the first grain. */
  readonly begin: number;
}

/** The disk of a stream; undefined for an image whose grains do not say which they are, or with a parent. */
export async function streamVmdk(stream: ByteStream): Promise<StreamedDisk | undefined> {
  const { filename } = stream;
  const begin = await stream.peek(sectorBytes);
  if (begin.length < sectorBytes) return undefined;
  const view = new DataView(begin.buffer, begin.byteOffset, begin.length);
  if (view.getUint32(0) !== hostedMagic) return undefined;
  const header = decodeHostedHeader(view);
  if (header.capacity === 0 || !(await standsAlone(stream, header))) return undefined;
  const extent = hostedExtent(
    { ...header, directoryOffset: 0 },
    { image: filename, filename, size: Infinity },
  );
  if (extent.compression !== 'marked') return undefined;
  const { length: size, grainBytes } = extent;
  const disk = { size, grainBytes, begin: Math.max(1, header.overhead) * sectorBytes };
  return { size, pieces: inflated(grainsOf(stream, disk), disk, filename) };
}

/** Whether all of the disk is in the stream. */
async function standsAlone(stream: ByteStream, header: HostedHeader): Promise<boolean> {
  const { descriptorOffset, descriptorSize } = header;
  if (descriptorOffset === 0) return true;
  const start = descriptorOffset * sectorBytes;
  const length = Math.min(descriptorSize * sectorBytes, maxVmdkDescriptorBytes);
  if (start + length > beginBytes) return false;
  const bytes = await stream.peek(start + length);
  const text = descriptorText(bytes.subarray(start));
  return text === '' || parseIdentity(text, stream.filename).parentCid === noParent;
}

/** @throws CowherdError for grains that are damaged, or not in their order */
async function* grainsOf(stream: ByteStream, disk: Disk): AsyncGenerator<Grain> {
  const { filename } = stream;
  const most = Math.min(2 * disk.grainBytes, maxChunkBytes);
  let at = await stream.skip(disk.begin);
  let next = 0;
  if (at < disk.begin) throw damagedImage(filename, 'the stream ends within its header', at);
  for (;;) {
    const sector = await stream.peek(sectorBytes);
    // QEMU ends streams without a mark.
    if (sector.length === 0) return;
    if (sector.length < sectorBytes) {
      throw damagedImage(filename, 'the stream ends within a sector', at);
    }
    const view = new DataView(sector.buffer, sector.byteOffset, sector.length);
    const value = uint64(view, 0);
    const length = view.getUint32(8, true);
    if (length === 0) {
      // Tables and what else stands between grains follow the sector that says so; a mark of the end has none.
      const whole = (1 + value) * sectorBytes;
      const skipped = await stream.skip(whole);
      if (skipped < whole) throw damagedImage(filename, 'the stream ends within a table', at);
      at += skipped;
      continue;
    }
    if (length > most) {
      throw damagedImage(filename, `a compressed grain has a length of ${length}`, at);
    }
    const offset = value * sectorBytes;
    if (offset % disk.grainBytes !== 0 || offset >= disk.size) {
      throw damagedImage(filename, `a compressed grain is at ${offset}, where none can be`, at);
    }
    if (offset < next) {
      const why = 'the grains are not in the order of the disk: it can be read from a file only';
      throw unsupportedImage(filename, why);
    }
    const whole = wholeSectors(grainMarkerBytes + length);
    const bytes = await stream.take(whole);
    if (bytes.length < grainMarkerBytes + length) {
      throw damagedImage(filename, 'the stream ends within a grain', at);
    }
    yield { offset, compressed: bytes.subarray(grainMarkerBytes, grainMarkerBytes + length), at };
    next = offset + disk.grainBytes;
    at += bytes.length;
  }
}

/** The grains, several at a time, as what they hold. */
async function* inflated(
  grains: AsyncIterable<Grain>,
  disk: Disk,
  filename: string,
): AsyncGenerator<StreamedPiece> {
  const underWay: Promise<StreamedPiece>[] = [];
  const begin = (batch: readonly Grain[]): void => {
    const piece = inflateBatch(batch, disk, filename);
    // A failure is met when its turn comes.
    piece.catch(() => undefined);
    underWay.push(piece);
  };
  const { grainBytes } = disk;
  const grainsAtOnce = Math.max(1, Math.floor(batchBytes / grainBytes));
  let batch: Grain[] = [];
  for await (const grain of grains) {
    const follows =
      batch.length === 0 || batch[batch.length - 1].offset + grainBytes === grain.offset;
    if (!follows || batch.length === grainsAtOnce) {
      begin(batch);
      batch = [];
      if (underWay.length >= mostBatches) yield await underWay.shift()!;
    }
    batch.push(grain);
  }
  if (batch.length > 0) begin(batch);
  for (const piece of underWay) yield await piece;
}

/** @param batch grains that follow one another */
async function inflateBatch(
  batch: readonly Grain[],
  { size, grainBytes }: Disk,
  filename: string,
): Promise<StreamedPiece> {
  const { offset } = batch[0];
  const bytes = new Uint8Array(Math.min(batch.length * grainBytes, size - offset));
  await Promise.all(
    batch.map(({ compressed, at }, index) => {
      const into = bytes.subarray(index * grainBytes, (index + 1) * grainBytes);
      return inflateGrain(filename, compressed, { offset: at, grainBytes }, into);
    }),
  );
  return { offset, bytes };
}
