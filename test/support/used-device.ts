/** A disk in memory that is like a device someone else has used: of a fixed size, and full of their bytes. */
import { CowherdError } from '../../src/errors.js';
import { FilterFile, type StorageOperation } from '../../src/storage/filters/filter-file.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import type { StorageFile, StorageLimits } from '../../src/storage/storage.js';

/** What the device is full of. */
export const usedByte = 0xa5;

/** See the file's comment. */
export class UsedDevice extends FilterFile {
  readonly content: MemoryContent;

  static ofSize(bytes: number, filename = 'device'): UsedDevice {
    const content = new MemoryContent();
    content.write(new Uint8Array(bytes).fill(usedByte), 0);
    return new UsedDevice(new MemoryFile(filename, { content }), content);
  }

  private constructor(inner: StorageFile, content: MemoryContent) {
    super(inner);
    this.content = content;
  }

  override get limits(): StorageLimits {
    return { ...this.inner.limits, zeroInit: false, detectsHoles: false, blockDevice: true };
  }

  openQueue(): StorageFile {
    return new UsedDevice(this.inner.openQueue(), this.content);
  }

  override truncate(size: number): Promise<void> {
    const refused = size > this.content.size;
    return refused ? Promise.reject(this.#refusal('resize', size)) : Promise.resolve();
  }

  protected intercept({ kind, offset, length }: StorageOperation): CowherdError | undefined {
    const changes = kind === 'write' || kind === 'writeZeroes' || kind === 'allocate';
    if (kind === 'allocate') return this.#refusal('reserve space in', offset);
    return changes && offset + length > this.content.size
      ? this.#refusal('write to', offset)
      : undefined;
  }

  #refusal(attempt: string, offset: number): CowherdError {
    const { filename } = this;
    const message = `Could not ${attempt} '${filename}' at byte ${offset}: No space left on device`;
    return new CowherdError('ERR_COWHERD_NO_SPACE', message, { filename, offset });
  }
}
