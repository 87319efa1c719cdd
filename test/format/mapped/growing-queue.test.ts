/** Flushes of images of a mapping: what each has promised, whatever else is under way. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { createImage } from '../../../src/image/graph/create.js';
import { openImageOn } from '../../../src/image/graph/open.js';
import type { CreateImageOptions } from '../../../src/image/api/options.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';

const mib = 1024 * 1024;

/** A file whose content is, at each barrier, what a disk would hold that keeps nothing else. */
class KeptFile extends MemoryFile {
  readonly durable: MemoryContent[];
  readonly #content: MemoryContent;
  /** Called at each barrier, before it ends. */
  onBarrier: () => Promise<void> = () => Promise.resolve();
  failsAtBarrier: () => boolean = () => false;

  constructor(name: string, content: MemoryContent) {
    super(name, { content });
    this.#content = content;
    this.durable = [content.clone()];
  }

  override async flush(): Promise<void> {
    const kept = this.#content.clone();
    await this.onBarrier();
    if (this.failsAtBarrier()) throw new Error('the device failed');
    this.durable.push(kept);
    await super.flush();
  }
}

async function newImage(options: CreateImageOptions): Promise<KeptFile> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-growing-'));
  try {
    const file = path.join(folder, 'disk');
    await createImage(file, options);
    const content = new MemoryContent();
    content.write(await readFile(file), 0);
    return new KeptFile(`disk.${options.format}`, content);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** What a file reads as that has the content. */
async function readBack(
  format: string,
  content: MemoryContent | undefined,
  offset: number,
): Promise<number> {
  const file = new MemoryFile(`disk.${format}`, { content: content!.clone(), readOnly: true });
  await using image = await openImageOn(file, { format, readOnly: true });
  const byte = new Uint8Array(1);
  await image.read(byte, offset);
  return byte[0];
}

const formats = [
  { format: 'vdi', size: 6 * mib },
  { format: 'vpc', size: 12 * mib, forceSize: true },
  { format: 'vhdx', size: 6 * mib, blockSize: mib },
  { format: 'vmdk', size: 6 * mib },
  { format: 'qed', size: 6 * mib },
] as const;

for (const options of formats) {
  const { format } = options;

  test(`${format}: a flush beside another one ends when what it covers is durable`, async () => {
    const file = await newImage(options);
    const image = await openImageOn(file, { format });
    await image.write(new Uint8Array(512).fill(7), 3 * mib);
    // The second comes while the first has taken the changes, and not written them.
    let second: Promise<void> | undefined;
    let kept: MemoryContent | undefined;
    file.onBarrier = async () => {
      second ??= image.flush().then(() => {
        kept = file.durable.at(-1);
      });
      await new Promise(setImmediate);
    };
    await image.flush();
    await second;
    assert.equal(await readBack(format, kept, 3 * mib), 7);
    await image.close();
  });

  test(`${format}: what is linked during a flush is for the next one, when its data are durable`, async () => {
    const file = await newImage(options);
    const image = await openImageOn(file, { format });
    await image.write(new Uint8Array(512).fill(7), 0);
    let isFirst = true;
    file.onBarrier = async () => {
      if (isFirst) {
        isFirst = false;
        await image.write(new Uint8Array(512).fill(8), 4 * mib);
      }
    };
    await image.flush();
    // The first barrier was before those data, the last one is too early to order anything.
    assert.equal(await readBack(format, file.durable.at(-1), 0), 7);
    assert.equal(await readBack(format, file.durable.at(-1), 4 * mib), 0);
    await image.flush();
    assert.equal(await readBack(format, file.durable.at(-1), 4 * mib), 8);
    await image.close();
  });

  test(`${format}: changes of a flush that failed are in the next one`, async () => {
    const file = await newImage(options);
    const image = await openImageOn(file, { format });
    for (const failing of [1, 2]) {
      await image.write(new Uint8Array(512).fill(failing), failing * 2 * mib);
      let barriers = 0;
      file.failsAtBarrier = () => ++barriers === failing;
      await assert.rejects(image.flush(), /the device failed/);
      file.failsAtBarrier = () => false;
      await image.flush();
      assert.equal(await readBack(format, file.durable.at(-1), failing * 2 * mib), failing);
    }
    await image.close();
  });
}
