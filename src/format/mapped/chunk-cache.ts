/**
 * Inflated chunks that are remembered for a while: reads of parts of a chunk inflate it once, and reads of
 * one after the other find the next one begun.
 */
import type { StorageFile } from '../../storage/storage.js';
import type { CompressedChunk } from './mapping.js';

/** Bytes that one queue remembers, but for what is being read, and always one chunk. */
const rememberedBytes = 16 * 1024 * 1024;

interface Inflated {
  readonly size: number;
  readonly bytes: Promise<Uint8Array>;
}

/** One queue's inflated chunks. */
export class ChunkCache {
  readonly #files: readonly StorageFile[];
  /** By the chunk's key, the one used longest ago first. */
  readonly #chunks = new Map<number, Inflated>();
  #bytes = 0;

  constructor(files: readonly StorageFile[]) {
    this.#files = files;
  }

  /** Fills `into` with a part of a chunk. @param within where in the chunk it begins, in bytes */
  async read(chunk: CompressedChunk, within: number, into: Uint8Array): Promise<void> {
    // All of it, and nobody else asks: it need not be kept.
    if (into.length === chunk.size && !this.#chunks.has(chunk.key)) {
      await chunk.inflate(this.#files, into);
      return;
    }
    const bytes = await this.#find(chunk);
    into.set(bytes.subarray(within, within + into.length));
  }

  #find(chunk: CompressedChunk): Promise<Uint8Array> {
    const { key, size } = chunk;
    let inflated = this.#chunks.get(key);
    if (inflated === undefined) {
      const bytes = this.#inflate(chunk);
      inflated = { size, bytes };
      this.#bytes += size;
      // The next reader tries again; those of this one hear of it.
      bytes.catch(() => {
        this.#forget(key);
      });
    } else this.#chunks.delete(key);
    this.#chunks.set(key, inflated);
    for (const oldest of this.#chunks.keys()) {
      if (this.#bytes <= rememberedBytes || this.#chunks.size === 1) break;
      this.#forget(oldest);
    }
    return inflated.bytes;
  }

  async #inflate(chunk: CompressedChunk): Promise<Uint8Array> {
    const bytes = new Uint8Array(chunk.size);
    await chunk.inflate(this.#files, bytes);
    return bytes;
  }

  #forget(key: number): void {
    const inflated = this.#chunks.get(key);
    if (inflated === undefined) return;
    this.#chunks.delete(key);
    this.#bytes -= inflated.size;
  }
}
