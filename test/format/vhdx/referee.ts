/** Holds what the library reads of an image against what it has to be: as qemu-img has it, or as it was made. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { CowherdError } from '../../../src/errors.js';
import type { Mapping, Place } from '../../../src/format/mapped/mapping.js';
import type { Image } from '../../../src/image/api/image.js';
import type { OpenImageOptions } from '../../../src/image/api/options.js';
import type { Extent } from '../../../src/image/api/reports.js';
import { openImage } from '../../../src/image/graph/open.js';
import { MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { run, runOk } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const runs = Number(process.env['COWHERD_TEST_RUNS'] ?? 25);

/** Opens an image for reading. */
export function openReadOnly(
  file: string,
  format: string,
  options: OpenImageOptions = {},
): Promise<Image> {
  return openImage(file, { ...options, format, readOnly: true });
}

/** The whole disk as qemu-img has it. */
export async function contentByQemu(file: string, format: string): Promise<Buffer> {
  const raw = `${file}.raw`;
  await runOk('qemu-img', ['convert', '-f', format, '-O', 'raw', file, raw]);
  return await readFile(raw);
}

/** Has qemu-io write to an image. */
export async function writeByQemu(
  file: string,
  format: string,
  commands: readonly string[],
): Promise<void> {
  const words = commands.flatMap((command) => ['-c', command]);
  await runOk('qemu-io', ['-f', format, ...words, file]);
}

/**
 * Compares the whole disk, parts of it at random, and the map, with qemu-img's.
 *
 * @returns the disk
 */
export async function assertReadsAsQemu(
  t: TestContext,
  file: string,
  format: string,
): Promise<Buffer> {
  const expected = await contentByQemu(file, format);
  await assertReads(t, file, format, expected);
  if (format !== 'vhdx') await assertMapsAsQemu(file, format);
  return expected;
}

/** Compares the extents with qemu-img's: which image has what, and where in its file. */
export async function assertMapsAsQemu(file: string, format: string): Promise<void> {
  const text = await runOk('qemu-img', ['map', '--output=json', '-f', format, file]);
  await using image = await openReadOnly(file, format);
  assert.deepEqual(await extentsOf(image), joined(JSON.parse(text) as Extent[]));
}

/** The extents of an image, as far as they are compared. */
export async function extentsOf(image: Image): Promise<Partial<Extent>[]> {
  const extents: Extent[] = [];
  for await (const extent of image.map()) extents.push(extent);
  return joined(extents);
}

/** Extents without what depends on the holes of the file below, put together where they go on. */
function joined(extents: readonly Extent[]): Partial<Extent>[] {
  const result: (Pick<Extent, 'start' | 'length'> & Partial<Extent>)[] = [];
  for (const { start, length, depth, present, data, compressed, offset } of extents) {
    if (length === 0) continue;
    const place = data && offset !== undefined ? { offset } : {};
    const next = { start, length, depth, present, data, compressed, ...place };
    const last = result.at(-1);
    const isSame =
      last?.depth === depth &&
      last.present === present &&
      last.data === data &&
      last.compressed === compressed &&
      (place.offset === undefined
        ? last.offset === undefined
        : last.offset !== undefined && last.offset + last.length === place.offset);
    if (isSame) result.splice(-1, 1, { ...last, length: last.length + length });
    else result.push(next);
  }
  return result;
}

/** Compares the whole disk, and parts of it at random, with its bytes; and what `map` promises of it. */
export async function assertReads(
  t: TestContext,
  file: string,
  format: string,
  expected: Buffer,
  options: OpenImageOptions = {},
): Promise<void> {
  await using image = await openReadOnly(file, format, options);
  assert.equal(image.format, format);
  assert.equal(image.size, expected.length);
  const piece = 700_001;
  for (let start = 0; start < expected.length; start += piece) {
    await assertRange(image, expected, start, Math.min(piece, expected.length - start));
  }
  await assertRange(image, expected, 0, expected.length);
  await assertPromises(image, expected);
  if (expected.length === 0) return;
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  const range = fc.record({
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    length: fc.oneof(fc.integer({ min: 1, max: 3000 }), fc.integer({ min: 1, max: 2_500_000 })),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 6 }), async (ranges) => {
      // Side by side: requests share what they look up.
      await Promise.all(
        ranges.map(({ at, length }) => {
          const start = Math.floor(at * expected.length);
          return assertRange(image, expected, start, Math.min(length, expected.length - start));
        }),
      );
    }),
    { seed, numRuns: runs },
  );
}

async function assertRange(
  image: Image,
  expected: Buffer,
  start: number,
  length: number,
): Promise<void> {
  const buffer = Buffer.alloc(length, 0xee);
  await image.read(buffer, start);
  const wanted = expected.subarray(start, start + length);
  if (buffer.equals(wanted)) return;
  const at = buffer.findIndex((byte, index) => byte !== wanted[index]);
  assert.fail(`byte ${start + at} is ${buffer[at]}, not ${wanted[at]}`);
}

/** The extents cover the disk; those of zeroes are zeroes, those with a place have their bytes there. */
async function assertPromises(image: Image, expected: Buffer): Promise<void> {
  let end = 0;
  const files = new Map<string, Buffer>();
  for await (const { start, length, zero, offset, filename = '' } of image.map()) {
    assert.equal(start, end);
    end += length;
    const bytes = expected.subarray(start, end);
    if (zero)
      assert.ok(
        bytes.every((byte) => byte === 0),
        `zeroes at ${start}`,
      );
    else if (offset !== undefined) {
      const stored = files.get(filename) ?? (await readFile(filename));
      files.set(filename, stored);
      const found = Buffer.alloc(length);
      stored.subarray(offset, offset + length).copy(found);
      assert.ok(found.equals(bytes), `data at ${start}`);
    }
  }
  assert.equal(end, expected.length);
}

/** A file in memory, with bytes at offsets in it. */
export function memoryFile(parts: readonly (readonly [at: number, bytes: Buffer])[]): MemoryFile {
  const content = new MemoryContent();
  for (const [at, bytes] of parts) content.write(bytes, at);
  return new MemoryFile('memory', { content });
}

/** A place; what was looked up once is known at once. */
export async function placeOf(mapping: Mapping, offset: number, length: number): Promise<Place> {
  await mapping.find(offset, length);
  const place = mapping.find(offset, length);
  assert.ok(!(place instanceof Promise));
  return place;
}

/** 32-bit numbers, one after the other. */
export function numbers32(values: readonly number[], order: 'LE' | 'BE'): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) {
    if (order === 'LE') bytes.writeUInt32LE(value, 4 * index);
    else bytes.writeUInt32BE(value, 4 * index);
  }
  return bytes;
}

/** 64-bit numbers, one after the other. */
export function numbers64(values: readonly number[], order: 'LE' | 'BE'): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [index, value] of values.entries()) {
    if (order === 'LE') bytes.writeBigUInt64LE(BigInt(value), 8 * index);
    else bytes.writeBigUInt64BE(BigInt(value), 8 * index);
  }
  return bytes;
}

/** A change of a file's bytes, and what is said of the file then. */
export interface Damage {
  readonly what: string;
  /** Changes the bytes, or gives others. */
  readonly change: (bytes: Buffer) => unknown;
  /** The message, but for what is before the reason. */
  readonly says: string;
  /** Whether it is found out when it is opened (the default) or read. */
  readonly when?: 'opened' | 'read';
  /**
   * What qemu-img does with it: says the same (the default), fails with other words, reads the image all
   * the same, or need not be asked.
   */
  readonly qemu?: 'same' | 'fails' | 'reads' | 'unasked';
}

/** A change of one number. */
export function setNumber(
  at: number,
  value: number | bigint,
  kind: 'LE32' | 'BE32' | 'LE64' | 'BE64' | '8',
): (bytes: Buffer) => void {
  return (bytes) => {
    if (kind === 'LE32') bytes.writeUInt32LE(Number(value), at);
    else if (kind === 'BE32') bytes.writeUInt32BE(Number(value), at);
    else if (kind === 'LE64') bytes.writeBigUInt64LE(BigInt(value), at);
    else if (kind === 'BE64') bytes.writeBigUInt64BE(BigInt(value), at);
    else bytes.writeUInt8(Number(value), at);
  };
}

/** Damages a file in one way after the other, and asserts what is said of it, here and by qemu-img. */
export async function assertRefusals(
  file: string,
  format: string,
  damages: readonly Damage[],
): Promise<void> {
  const good = await readFile(file);
  for (const { what, change, says, when = 'opened', qemu = 'same' } of damages) {
    const bytes = Buffer.from(good);
    const changed = change(bytes);
    const damaged = changed instanceof Buffer ? changed : bytes;
    assert.ok(!damaged.equals(good), `${what}: nothing is changed`);
    await writeFile(file, damaged);
    const prefix = when === 'opened' ? `Could not open '${file}': ` : `'${file}': `;
    const message = await failureOf(file, format, when, what);
    assert.equal(message, prefix + says, what);
    if (qemu === 'unasked') continue;
    const words = ['convert', '-f', format, '-O', 'raw', file, `${file}.raw`];
    const { code, stderr } = await run('qemu-img', words);
    assert.equal(code === 0, qemu === 'reads', `${what}: qemu-img ${stderr}`);
    if (qemu === 'same') assert.ok(stderr.includes(says), `${what}: qemu-img ${stderr}`);
  }
  await writeFile(file, good);
  await (await openReadOnly(file, format)).close();
}

async function failureOf(
  file: string,
  format: string,
  when: 'opened' | 'read',
  what: string,
): Promise<string> {
  let isOpen = false;
  try {
    await using image = await openReadOnly(file, format);
    isOpen = true;
    await image.read(Buffer.alloc(image.size), 0);
  } catch (error) {
    if (!(error instanceof CowherdError)) throw error;
    assert.equal(isOpen ? 'read' : 'opened', when, `${what}: ${error.message}`);
    assert.equal(error.filename, file, what);
    assert.ok(!error.message.includes('\n'), `${what}: one line`);
    return error.message;
  }
  return assert.fail(`${what}: read as if nothing were wrong`);
}

/** Bytes that are not zeroes, other ones for every seed. */
export function pattern(salt: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = salt * 2_654_435_761 + 1;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[at] = 1 + ((state >>> 16) % 255);
  }
  return bytes;
}
