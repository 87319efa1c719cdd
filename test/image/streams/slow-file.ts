/** A file in memory whose transfers wait, to see how many are under way and what ends them. */
import { formatFile } from '../../../src/image/graph/create.js';
import { openImageOn } from '../../../src/image/graph/open.js';
import type { Image } from '../../../src/image/api/image.js';
import type { OpenImageOptions } from '../../../src/image/api/options.js';
import {
  FilterFile,
  type Interception,
  type StorageOperation,
} from '../../../src/storage/filters/filter-file.js';
import { MemoryFile } from '../../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../../src/storage/storage.js';

/** Counts transfers, and holds them back while it is told to. */
export class Slowness {
  /** Whether transfers wait. */
  holds = false;
  reads = 0;
  writes = 0;
  /** Those that wait. */
  readonly waiting: (() => void)[] = [];

  /** Lets go what waits, and whatever comes later. */
  letGo(): void {
    this.holds = false;
    for (const go of this.waiting.splice(0)) go();
  }
}

/** See the file's comment. */
export class SlowFile extends FilterFile {
  readonly #slowness: Slowness;

  constructor(inner: StorageFile, slowness: Slowness) {
    super(inner);
    this.#slowness = slowness;
  }

  openQueue(): SlowFile {
    return new SlowFile(this.inner.openQueue(), this.#slowness);
  }

  protected intercept({ kind }: StorageOperation): Interception {
    if (kind !== 'read' && kind !== 'write') return undefined;
    if (kind === 'read') this.#slowness.reads += 1;
    else this.#slowness.writes += 1;
    if (!this.#slowness.holds) return undefined;
    return new Promise((resolve) => {
      this.#slowness.waiting.push(() => {
        resolve(undefined);
      });
    });
  }
}

/** A raw disk of so many bytes in a slow file. */
export async function slowDisk(
  size: number,
  slowness: Slowness,
  options: OpenImageOptions = {},
): Promise<Image> {
  const file = new MemoryFile('disk');
  await formatFile(file, { format: 'raw', size });
  return await openImageOn(new SlowFile(file, slowness), { format: 'raw', ...options });
}
