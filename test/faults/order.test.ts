/** Failures that a sweep found, or would have to be lucky to find, each as its shortest case. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createQcow2 } from '../../src/format/qcow2/change/create.js';
import type { CreateOptions } from '../../src/image/api/options.js';
import { decideCreateOptions } from '../../src/format/qcow2/change/create-options.js';
import type { OpenedImage } from '../../src/image/graph/opened-image.js';
import { CowherdError } from '../../src/errors.js';
import {
  FilterFile,
  type Interception,
  type StorageOperation,
} from '../../src/storage/filters/filter-file.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../src/storage/storage.js';
import { bytesOf, openOver } from '../crash/open-over.js';
import { Referee } from '../crash/referee.js';
import { type Mark, fillSectors, sectorSize } from '../schedules/history.js';

/** Whether an operation fails; a promise of that holds it back. */
type Choice = (operation: StorageOperation) => boolean | Promise<boolean>;

/** Fails, or holds back, what a function chooses. */
class ChosenFaults extends FilterFile {
  readonly #fails: Choice;

  constructor(inner: StorageFile, fails: Choice) {
    super(inner);
    this.#fails = fails;
  }

  openQueue(): ChosenFaults {
    return new ChosenFaults(this.inner.openQueue(), this.#fails);
  }

  protected intercept(operation: StorageOperation): Interception {
    const errorIf = (fails: boolean): CowherdError | undefined =>
      fails ? new CowherdError('ERR_COWHERD_IO', `'${this.filename}': chosen to fail`) : undefined;
    const fails = this.#fails(operation);
    return typeof fails === 'boolean' ? errorIf(fails) : fails.then(errorIf);
  }
}

/** An image in memory, and what its sectors show. */
class Disk {
  readonly content = new MemoryContent();
  readonly marks: Uint32Array;
  fails: Choice = () => false;
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

test('a cluster that is still being packed is neither punched nor freed', async () => {
  const disk = new Disk(2048);
  const image = await disk.create({ clusterSize: 4096 });
  const compress = async (sector: number): Promise<void> => {
    const mark = 100 + sector;
    await image.writeCompressed(fillSectors(mark, sector, 8), sector * sectorSize);
    disk.marks.fill(mark, sector, sector + 8);
  };
  await compress(0);
  await image.discard(0, 4096);
  disk.marks.fill(0, 0, 8);
  let release = (): void => undefined;
  const held = new Promise<boolean>((resolve) => {
    release = () => {
      resolve(false);
    };
  });
  disk.fails = ({ kind }) => kind === 'discard' && held;
  const flushed = image.flush();
  // Time enough to come to the punch, if there is one.
  for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
  await compress(8);
  release();
  await flushed;
  await image.close();
  disk.judge();
});

test('a place among packed data is given back if they could not be written', async () => {
  const disk = new Disk(2048);
  const image = await disk.create({ clusterSize: 4096 });
  const data = fillSectors(7, 0, 8);
  await image.writeCompressed(data, 0);
  disk.marks.fill(7, 0, 8);
  disk.fails = ({ kind }) => kind === 'write';
  await assert.rejects(image.writeCompressed(data, 4096), { code: 'ERR_COWHERD_IO' });
  disk.fails = () => false;
  await image.close();
  disk.judge();
});

test('what had to be prepared before the first change is tried again after a failure', async () => {
  const disk = new Disk(2048);
  const image = await disk.create({ clusterSize: 4096, lazyRefcounts: true });
  disk.fails = ({ kind, offset }) => kind === 'write' && offset === 0;
  await assert.rejects(disk.write(image, 0, 8), { code: 'ERR_COWHERD_IO' });
  disk.fails = () => false;
  await disk.write(image, 0, 8);
  await image.close();
  disk.judge();
});

test('a dirty bit that may have been set is cleared at the end, whether it was or not', async () => {
  const disk = new Disk(2048);
  const image = await disk.create({ clusterSize: 4096, lazyRefcounts: true });
  let headerWritten = false;
  disk.fails = ({ kind, offset }) => {
    if (kind === 'write' && offset === 0) headerWritten = true;
    return headerWritten && kind === 'flush';
  };
  await assert.rejects(disk.write(image, 0, 8), { code: 'ERR_COWHERD_IO' });
  assert.ok(headerWritten);
  disk.fails = () => false;
  await image.close();
  disk.judge();
});

test('counts that a flush has written into blocks that were then given up are not believed', async () => {
  const disk = new Disk(8192);
  const image = await disk.create({ clusterSize: 512, refcountBits: 64 });
  const other = await image.openQueue();
  await disk.write(image, 0, 8);
  await image.flush();
  const { size } = disk.content;
  let newBlocks = 0;
  disk.fails = ({ kind, offset }) => {
    if (kind !== 'read' || offset < size || ++newBlocks !== 4) return false;
    return other.flush().then(() => true);
  };
  await assert.rejects(disk.write(image, 8, 1000), { code: 'ERR_COWHERD_IO' });
  assert.ok(newBlocks >= 4);
  disk.fails = () => false;
  await disk.write(image, 8, 1000);
  await image.close();
  disk.judge();
});
