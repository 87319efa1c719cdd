/** Failures that a sweep found, or would have to be lucky to find, each as its shortest case. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createQcow2 } from '../../src/format/qcow2/create.js';
import type { CreateOptions } from '../../src/image/api.js';
import { decideCreateOptions } from '../../src/image/create-options.js';
import type { OpenedImage } from '../../src/image/opened-image.js';
import { CowherdError } from '../../src/errors.js';
import { FilterFile, type StorageOperation } from '../../src/storage/filters/filter-file.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory.js';
import type { StorageFile } from '../../src/storage/storage.js';
import { bytesOf, openOver } from '../crash/open-over.js';
import { Referee } from '../crash/referee.js';
import { type Mark, fillSectors, sectorSize } from '../schedules/history.js';

/** Fails what a function chooses. */
class ChosenFaults extends FilterFile {
  readonly #fails: (operation: StorageOperation) => boolean;

  constructor(inner: StorageFile, fails: (operation: StorageOperation) => boolean) {
    super(inner);
    this.#fails = fails;
  }

  openQueue(): ChosenFaults {
    return new ChosenFaults(this.inner.openQueue(), this.#fails);
  }

  protected intercept(operation: StorageOperation): CowherdError | undefined {
    if (!this.#fails(operation)) return undefined;
    return new CowherdError('ERR_COWHERD_IO', `'${this.filename}': chosen to fail`);
  }
}

/** An image in memory, and what its sectors show. */
class Disk {
  readonly content = new MemoryContent();
  readonly marks: Uint32Array;
  /** Whether an operation is to fail. */
  fails: (operation: StorageOperation) => boolean = () => false;
  #marks = 1;

  constructor(sectors: number) {
    this.marks = new Uint32Array(sectors);
  }

  async create(options: CreateOptions): Promise<OpenedImage> {
    const decided = decideCreateOptions(options, this.marks.length * sectorSize);
    await createQcow2(
      new MemoryFile('disk', { content: this.content }),
      undefined,
      decided,
      undefined,
    );
    return this.open();
  }

  open(): Promise<OpenedImage> {
    const memory = new MemoryFile('disk', { content: this.content });
    const file = new ChosenFaults(memory, (operation) => this.fails(operation));
    return openOver({ file, dataFile: undefined, backing: undefined });
  }

  async write(
    target: { write(buffer: Uint8Array, offset: number): Promise<void> },
    sector: number,
    count: number,
  ): Promise<void> {
    const mark: Mark = ++this.#marks;
    await target.write(fillSectors(mark, sector, count), sector * sectorSize);
    this.marks.fill(mark, sector, sector + count);
  }

  /** Judges what lies in memory. */
  judge(): void {
    const image = bytesOf(this.content);
    const files = { image, imageSize: image.length, data: undefined, dataSize: 0 };
    const { problems, leaks, dirty } = new Referee(files).judge({
      permitted: Array.from(this.marks, (mark) => [mark]),
      backing: () => 0,
      snapshotMarks: undefined,
    });
    assert.deepEqual({ problems, leaks, dirty }, { problems: [], leaks: 0, dirty: false });
  }
}

test('a header that may point at a new refcount table is settled before clusters are appended', async () => {
  const disk = new Disk(8192);
  const image = await disk.create({ clusterSize: 512, refcountBits: 64 });
  const other = await image.openQueue();
  // The first queue's next reservations double, and soon pass what one cluster of table counts.
  await disk.write(image, 0, 2600);
  let headerWritten = false;
  disk.fails = ({ kind, offset }) => {
    if (kind === 'write' && offset === 0) headerWritten = true;
    return headerWritten && kind === 'flush';
  };
  await assert.rejects(disk.write(image, 2600, 2000), { code: 'ERR_COWHERD_IO' });
  assert.ok(headerWritten);
  disk.fails = () => false;
  const before = disk.content.size;
  await disk.write(other, 5000, 300);
  assert.equal(disk.content.size, before, 'the other queue needs no longer table');
  await image.close();
  disk.marks.fill(0, 2600, 4600);
  const again = await disk.open();
  const { corruptions } = await again.check();
  await again.close();
  assert.equal(corruptions, 0);
});
