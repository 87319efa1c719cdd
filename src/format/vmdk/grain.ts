/** Compressed grains (Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents"). */
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import type { StorageFile } from '../../storage/storage.js';
import { damagedImage } from '../failures.js';
import { inflateInto } from '../mapped/inflate.js';
import type { CompressedChunk } from '../mapped/mapping.js';

const inflate = promisify(zlib.inflate) as (
  input: Uint8Array,
  options: zlib.ZlibOptions,
) => Promise<Uint8Array>;

/** Bytes of the marker before a grain: the grain's first sector and the length of what follows. */
const markerBytes = 12;
const lengthAt = 8;
/** Output that zlib makes room for at once. */
const mostRoom = 1024 * 1024;
/** Buffers that are kept for further reads, and bytes of the largest of them. */
const keptBuffers = 64;
const keptBytes = 128 * 1024;

/** Where a compressed grain lies. */
export interface StoredGrain {
  /** The image's file, counted as `Place` does. */
  readonly file: number;
  /** Host offset in bytes. */
  readonly offset: number;
  /** Bytes that it probably takes up with its marker. */
  readonly likelyBytes: number;
  /** Bytes of the disk in every grain but the last, which may have fewer. */
  readonly grainBytes: number;
  readonly isMarked: boolean;
}

/** Memory for reads that follow one another: new memory costs more than what is read into it. */
export class ReadBuffers {
  readonly #kept: Buffer[] = [];

  /** At least so many bytes. */
  take(length: number): Buffer {
    if (length > keptBytes) return Buffer.allocUnsafeSlow(length);
    return this.#kept.pop() ?? Buffer.allocUnsafeSlow(keptBytes);
  }

  /** Takes back what `take` gave and nobody uses any more. */
  giveBack(buffer: Buffer): void {
    if (buffer.length === keptBytes && this.#kept.length < keptBuffers) this.#kept.push(buffer);
  }
}

/** A compressed grain as a chunk. */
export class CompressedGrain implements CompressedChunk {
  readonly #stored: StoredGrain;
  readonly #buffers: ReadBuffers;

  /**
   * @param key its guest offset in bytes
   * @param size bytes of the disk in it
   */
  constructor(
    stored: StoredGrain,
    buffers: ReadBuffers,
    readonly key: number,
    readonly size: number,
  ) {
    this.#stored = stored;
    this.#buffers = buffers;
  }

  /** Where in its file it lies, in bytes. */
  get hostOffset(): number {
    return this.#stored.offset;
  }

  async inflate(files: readonly StorageFile[], into: Uint8Array): Promise<void> {
    const stored = this.#stored;
    const file = files[stored.file];
    // QEMU reads no more of a grain either.
    const most = stored.isMarked ? 2 * stored.grainBytes : stored.grainBytes;
    const buffer = this.#buffers.take(most);
    try {
      const data = await readGrain(file, stored, buffer.subarray(0, most));
      await inflateGrain(file.filename, data, stored, into.subarray(0, this.size));
    } finally {
      this.#buffers.giveBack(buffer);
    }
  }
}

/**
 * Inflates a grain.
 *
 * @param into as many bytes as the disk has of it: the last one may be stored whole, beyond its end
 * @throws CowherdError ERR_COWHERD_CORRUPT
 */
export async function inflateGrain(
  filename: string,
  data: Uint8Array,
  stored: Pick<StoredGrain, 'offset' | 'grainBytes'>,
  into: Uint8Array,
): Promise<void> {
  if (into.length === stored.grainBytes && (await fills(data, into))) return;
  into.set(await inflated(filename, data, stored, into.length));
}

/** Inflates a grain; what is wrong with one that does not fill `into` is found out in another way. */
async function fills(data: Uint8Array, into: Uint8Array): Promise<boolean> {
  try {
    await inflateInto(data, into, 'zlib');
    return true;
  } catch {
    return false;
  }
}

/** At least `size` bytes of the grain: the last one may be stored whole, beyond the end of the disk. */
async function inflated(
  filename: string,
  data: Uint8Array,
  { offset, grainBytes }: Pick<StoredGrain, 'offset' | 'grainBytes'>,
  size: number,
): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    // With a little more room than the output takes, zlib sees its end at once.
    const chunkSize = Math.min(grainBytes + 64, mostRoom);
    bytes = await inflate(data, { chunkSize, maxOutputLength: grainBytes });
  } catch (error) {
    throw damagedImage(filename, 'a compressed grain is damaged', offset, error);
  }
  if (bytes.length < size) {
    throw damagedImage(filename, 'a compressed grain has too few bytes', offset);
  }
  return bytes.subarray(0, size);
}

/** @param buffer as many bytes as a grain may take up */
async function readGrain(
  file: StorageFile,
  { offset, likelyBytes, isMarked }: StoredGrain,
  buffer: Buffer,
): Promise<Uint8Array> {
  if (!isMarked) {
    await file.read(buffer, offset);
    return buffer;
  }
  const likely = Math.min(likelyBytes, buffer.length);
  await file.read(buffer.subarray(0, likely), offset);
  const length = buffer.readUInt32LE(lengthAt);
  const end = markerBytes + length;
  if (length === 0 || end > buffer.length) {
    throw damagedImage(file.filename, `a compressed grain has a length of ${length}`, offset);
  }
  if (end > likely) await file.read(buffer.subarray(likely, end), offset + likely);
  return buffer.subarray(markerBytes, end);
}
