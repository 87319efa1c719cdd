/**
 * Images of a mapping whose device fails now and then: a request that failed was done, or not, sector by sector;
 * all others hold, and the tables are sound, to the library and to qemu-img.
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { CowherdError } from '../../src/errors.js';
import type { Image } from '../../src/image/api/image.js';
import { createImage } from '../../src/image/graph/create.js';
import { openImageOn } from '../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../src/storage/memory/memory-file.js';
import { Random } from '../stress/random.js';
import { needsTool, run, temporaryFolder } from '../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 4);
const sector = 512;
const mib = 1024 * 1024;

/** A file whose operations fail now and then, after a part of their work. */
class FailingFile extends MemoryFile {
  /** How likely an operation fails. */
  likelihood = 0;
  readonly #random: Random;

  constructor(name: string, content: MemoryContent, random: Random) {
    super(name, { content });
    this.#random = random;
  }

  #fails(): boolean {
    return this.#random.chance(this.likelihood);
  }

  #error(): CowherdError {
    return new CowherdError('ERR_COWHERD_IO', `'${this.filename}': the device failed`);
  }

  override async write(buffer: Uint8Array, offset: number): Promise<void> {
    await this.writeVector([buffer], offset);
  }

  override async writeVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    if (!this.#fails()) {
      await super.writeVector(buffers, offset);
      return;
    }
    const whole = Buffer.concat(buffers);
    const done = Math.floor(this.#random.next() * (whole.length / sector)) * sector;
    if (done > 0) await super.writeVector([whole.subarray(0, done)], offset);
    throw this.#error();
  }

  override async truncate(size: number): Promise<void> {
    if (this.#fails()) throw this.#error();
    await super.truncate(size);
  }

  override async read(buffer: Uint8Array, offset: number): Promise<void> {
    if (this.#fails()) throw this.#error();
    await super.read(buffer, offset);
  }

  override async flush(): Promise<void> {
    if (this.#fails()) throw this.#error();
    await super.flush();
  }
}

/** What each sector may be filled with. */
class Model {
  readonly #fills: number[][];

  constructor(sectors: number) {
    this.#fills = Array.from({ length: sectors }, () => [0]);
  }

  done(first: number, count: number, fill: number): void {
    for (let at = first; at < first + count; at++) this.#fills[at] = [fill];
  }

  failed(first: number, count: number, fill: number): void {
    for (let at = first; at < first + count; at++) this.#fills[at].push(fill);
  }

  assertHolds(disk: Buffer, what: string): void {
    for (const [at, fills] of this.#fills.entries()) {
      const bytes = disk.subarray(at * sector, (at + 1) * sector);
      const isOne = fills.some((fill) => bytes.every((byte) => byte === fill));
      assert.ok(isOne, `${what}: sector ${at} begins with ${bytes[0]}, not ${fills.join()}`);
    }
  }
}

async function readAll(image: Image): Promise<Buffer> {
  const disk = Buffer.alloc(image.size);
  await image.read(disk, 0);
  return disk;
}

for (const options of [
  { format: 'vdi', size: 6 * mib },
  { format: 'vpc', size: 12 * mib, forceSize: true },
  { format: 'vhdx', size: 6 * mib, blockSize: mib },
  { format: 'vmdk', size: 6 * mib },
  { format: 'qed', size: 6 * mib, clusterSize: 4096, tableSize: 2 },
] as const) {
  const { format, size } = options;

  test(`${format}: writes over a device that fails now and then`, async (t) => {
    if (!needsTool(t, 'qemu-img')) return;
    t.diagnostic(`seed ${seed}, ${runs} runs`);
    const folder = await temporaryFolder(t);
    const name = path.join(folder, 'disk');
    await createImage(name, options);
    const empty = await readFile(name);
    for (let round = 0; round < runs; round++) {
      const random = new Random(seed + round);
      const content = new MemoryContent();
      content.write(empty, 0);
      const file = new FailingFile(name, content, random);
      const image = await openImageOn(file, { format });
      const model = new Model(size / sector);
      await work(image, file, model, random);
      const what = `seed ${seed + round}`;
      model.assertHolds(await readAll(image), what);
      await image.close();
      const readOnly = new MemoryFile(name, { content, readOnly: true });
      await using again = await openImageOn(readOnly, { format, readOnly: true });
      const disk = await readAll(again);
      model.assertHolds(disk, `${what}, opened again`);
      const bytes = new Uint8Array(content.size);
      content.read(bytes, 0);
      await writeFile(name, bytes);
      await writeFile(`${name}.raw`, disk);
      const words = ['compare', '-f', format, '-F', 'raw', name, `${name}.raw`];
      const compare = await run('qemu-img', words);
      assert.equal(compare.code, 0, `${what}: ${compare.stdout}${compare.stderr}`);
      const check = await run('qemu-img', ['check', '-f', format, name]);
      // 3: leaks alone; 63: the format has no check.
      assert.ok([0, 3, 63].includes(check.code), `${what}: ${check.stdout}${check.stderr}`);
    }
  });
}

/** Random requests, two at once that touch other sectors; the last ones meet no failure. */
async function work(image: Image, file: FailingFile, model: Model, random: Random): Promise<void> {
  const sectors = image.size / sector;
  let fill = 0;
  const change = async (first: number, count: number): Promise<void> => {
    fill = (fill % 255) + 1;
    const own = random.chance(0.2) ? 0 : fill;
    try {
      if (own === 0) await image.writeZeroes(first * sector, count * sector);
      else await image.write(Buffer.alloc(count * sector, own), first * sector);
      model.done(first, count, own);
    } catch (error) {
      assert.ok(error instanceof CowherdError, String(error));
      model.failed(first, count, own);
    }
  };
  const half = sectors / 2;
  const anywhere = (from: number): Promise<void> => {
    const count = 1 + random.below(random.chance(0.2) ? 3000 : 40);
    return change(from + random.below(half - count), count);
  };
  for (let step = 0; step < 30; step++) {
    file.likelihood = step < 25 ? 0.15 : 0;
    await Promise.all([anywhere(0), anywhere(half)]);
    if (random.chance(0.4)) await image.flush().catch(() => undefined);
  }
  await image.flush();
}
