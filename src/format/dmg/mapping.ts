/** Where the bytes of a UDIF image lie. */
import { maxJoinedEntries } from '../../limits.js';
import type { StorageFile } from '../../storage/storage.js';
import { damagedImage } from '../failures.js';
import type { CompressedChunk, Mapping, Place } from '../mapped/mapping.js';
import { ChunkType, type DmgLayout } from './chunks.js';
import { type UnpackChunk, unpackChunk, unreadableChunk } from './unpack.js';

/** The mapping of one image on one thread. */
export class DmgMapping implements Mapping {
  readonly #layout: DmgLayout;
  readonly #filename: string;
  /** The chunk that was used last. */
  #last = 0;

  constructor(layout: DmgLayout, { filename }: StorageFile) {
    this.#layout = layout;
    this.#filename = filename;
  }

  find(offset: number, length: number): Place {
    const { types, starts, lengths, offsets } = this.#layout;
    const index = this.#chunkAt(offset);
    const within = offset - starts[index];
    switch (types[index]) {
      case ChunkType.zero:
      case ChunkType.ignored:
        return { kind: 'zero', length: Math.min(length, this.#endOfRun(index) - offset) };
      case ChunkType.raw: {
        const end = this.#endOfRun(index);
        if (end <= offset) {
          const why = `chunk ${index} has fewer bytes than it holds of the disk`;
          throw damagedImage(this.#filename, why, offsets[index]);
        }
        return {
          kind: 'data',
          length: Math.min(length, end - offset),
          file: 0,
          offset: offsets[index] + within,
        };
      }
      default: {
        const chunk = this.#compressed(index);
        const found = Math.min(length, lengths[index] - within);
        return { kind: 'compressed', length: found, chunk, within };
      }
    }
  }

  /** Guest offset in bytes up to which a chunk and those after it are one stretch of zeroes or data. */
  #endOfRun(index: number): number {
    const { types, starts, lengths, offsets, storedLengths } = this.#layout;
    const isRaw = types[index] === ChunkType.raw;
    const last = Math.min(index + maxJoinedEntries, starts.length) - 1;
    let end = starts[index];
    for (let each = index; each <= last; each += 1) {
      const isAlike = isRaw
        ? types[each] === ChunkType.raw && offsets[each] - offsets[index] === end - starts[index]
        : types[each] === ChunkType.zero || types[each] === ChunkType.ignored;
      if (!isAlike || starts[each] !== end) break;
      const length = isRaw ? Math.min(lengths[each], storedLengths[each]) : lengths[each];
      end += length;
      if (length < lengths[each]) break;
    }
    return end;
  }

  #chunkAt(offset: number): number {
    const { starts, lengths } = this.#layout;
    const holds = (index: number): boolean =>
      index < starts.length && offset >= starts[index] && offset < starts[index] + lengths[index];
    if (holds(this.#last)) return this.#last;
    let first = 0;
    let last = starts.length - 1;
    while (first < last) {
      const middle = Math.ceil((first + last) / 2);
      if (starts[middle] <= offset) first = middle;
      else last = middle - 1;
    }
    if (!holds(first)) {
      throw damagedImage(this.#filename, `no chunk holds the disk's byte ${offset}`);
    }
    this.#last = first;
    return first;
  }

  #compressed(index: number): CompressedChunk {
    const { types, lengths, offsets, storedLengths } = this.#layout;
    const type = types[index];
    const [offset, size] = [offsets[index], lengths[index]];
    return {
      key: index,
      size,
      async inflate([file], into) {
        const unpack = unpackChunk[type] as UnpackChunk | undefined;
        if (unpack === undefined) throw unreadableChunk(type, file.filename, offset);
        const data = Buffer.allocUnsafeSlow(storedLengths[index]);
        await file.read(data, offset);
        try {
          await unpack(data, into);
        } catch (error) {
          const why = `compressed chunk ${index} is damaged`;
          throw damagedImage(file.filename, why, offset, error);
        }
      },
    };
  }
}
