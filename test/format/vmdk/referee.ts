/** Holds what the library reads of an image against what the real qemu-img makes of it. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { CowherdError } from '../../../src/errors.js';
import type { Image } from '../../../src/image/api/image.js';
import type { Extent } from '../../../src/image/api/reports.js';
import { openImage } from '../../../src/image/graph/open.js';
import { run, runOk } from '../../support/tools.js';

const seed = Number(process.env['COWHERD_TEST_SEED'] ?? Date.now() % 1_000_000_007);
const wantedRuns = process.env['COWHERD_TEST_RUNS'];

/** What is compared. */
export interface Compared {
  readonly format: 'vmdk' | 'dmg' | 'cloop' | 'bochs';
  /**
   * How `map` is compared: extent by extent, or only by what it promises, where QEMU has no more to tell
   * than that the disk is data.
   */
  readonly map: 'exact' | 'promises';
  /** How often parts of it are read at random; 40 times if left out. */
  readonly runs?: number;
}

/**
 * Compares the whole disk, parts of it at random, and the map.
 *
 * @returns the disk as qemu-img has it
 */
export async function assertReadsAsQemu(
  t: TestContext,
  file: string,
  compared: Compared,
): Promise<Buffer> {
  const { format } = compared;
  const raw = `${file}.raw`;
  await runOk('qemu-img', ['convert', '-f', format, '-O', 'raw', file, raw]);
  const expected = await readFile(raw);
  await assertReads(t, file, expected, compared);
  if (compared.map === 'exact') {
    const text = await runOk('qemu-img', ['map', '--output=json', '-f', format, file]);
    await using image = await openReadOnly(file, compared);
    assert.deepEqual(await mapOf(image), JSON.parse(text));
  }
  return expected;
}

/** Compares the whole disk, and parts of it at random, with its bytes; and what `map` promises of it. */
export async function assertReads(
  t: TestContext,
  file: string,
  expected: Buffer,
  compared: Compared,
): Promise<void> {
  await using image = await openReadOnly(file, compared);
  assert.equal(image.format, compared.format);
  assert.equal(image.size, expected.length);
  // In pieces that end nowhere in particular, and at once.
  const piece = 300_007;
  for (let start = 0; start < expected.length; start += piece) {
    await assertRange(image, expected, start, Math.min(piece, expected.length - start));
  }
  await assertRange(image, expected, 0, expected.length);
  const runs = Number(wantedRuns ?? compared.runs ?? 40);
  t.diagnostic(`seed ${seed}, ${runs} runs`);
  const range = fc.record({
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    length: fc.oneof(fc.integer({ min: 1, max: 2000 }), fc.integer({ min: 1, max: 300_000 })),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 8 }), async (ranges) => {
      // Side by side: lookups and chunks are shared between requests.
      await Promise.all(
        ranges.map(({ at, length }) => {
          const start = Math.floor(at * expected.length);
          return assertRange(image, expected, start, Math.min(length, expected.length - start));
        }),
      );
    }),
    { seed, numRuns: runs },
  );
  await assertPromises(image, expected);
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
  const files = new Map<string, Buffer>();
  let end = 0;
  for await (const { start, length, zero, offset, filename } of image.map()) {
    assert.equal(start, end);
    end += length;
    const bytes = expected.subarray(start, end);
    if (zero) {
      assert.ok(
        bytes.every((byte) => byte === 0),
        `zeroes at ${start}`,
      );
    } else if (offset !== undefined) {
      const stored = files.get(filename!) ?? (await readFile(filename!));
      files.set(filename!, stored);
      const found = Buffer.alloc(length);
      stored.subarray(offset, offset + length).copy(found);
      assert.ok(found.equals(bytes), `data at ${start}`);
    }
  }
  assert.equal(end, expected.length);
}

/** The extents as qemu-img prints them. */
async function mapOf(image: Image): Promise<unknown[]> {
  const extents: unknown[] = [];
  for await (const extent of image.map()) extents.push(asPrinted(extent));
  return extents;
}

function asPrinted({ start, length, depth, present, zero, data, ...more }: Extent): unknown {
  const { compressed, offset } = more;
  const printed = { start, length, depth, present, zero, data, compressed };
  return offset === undefined ? printed : { ...printed, offset };
}

function openReadOnly(file: string, { format }: Compared): Promise<Image> {
  return openImage(file, { format, readOnly: true });
}

/** A change of a file's bytes, and what is said of the file then. */
export interface Damage {
  readonly what: string;
  readonly at: number;
  /** The bytes from `at` on; as many are changed. */
  readonly bytes: readonly number[];
  /** The message but for what is before the reason. */
  readonly says: string;
  /** Whether it is found out when it is opened (the default) or read. */
  readonly when?: 'opened' | 'read';
  /**
   * What qemu-img does with it: says the same (the default), fails with other words, or reads the image
   * all the same.
   */
  readonly qemu?: 'same' | 'fails' | 'reads';
}

/** Bytes of a 32-bit number. */
export function bytes32(value: number, order: 'LE' | 'BE'): number[] {
  const bytes = Buffer.alloc(4);
  if (order === 'LE') bytes.writeUInt32LE(value);
  else bytes.writeUInt32BE(value);
  return [...bytes];
}

/** Bytes of a 64-bit number. */
export function bytes64(value: number | bigint, order: 'LE' | 'BE'): number[] {
  const bytes = Buffer.alloc(8);
  if (order === 'LE') bytes.writeBigUInt64LE(BigInt(value));
  else bytes.writeBigUInt64BE(BigInt(value));
  return [...bytes];
}

/**
 * Damages a file in one way after the other, and asserts what is said of it, here and by qemu-img.
 *
 * @param image the image to open, of which the damaged file is a part; the file itself if left out
 */
export async function assertRefusals(
  file: string,
  damages: readonly Damage[],
  format: Compared['format'],
  image = file,
): Promise<void> {
  const good = await readFile(file);
  for (const { what, at, bytes, says, when = 'opened', qemu = 'same' } of damages) {
    const damaged = Buffer.from(good);
    damaged.set(bytes, at);
    assert.ok(!damaged.equals(good), `${what} changes something`);
    await writeFile(file, damaged);
    const prefix = when === 'opened' ? `Could not open '${image}': ` : `'${file}': `;
    await assertFails(image, format, when, (message) => {
      assert.equal(message, prefix + says, what);
    });
    const raw = `${image}.raw`;
    const { code, stderr } = await run('qemu-img', [
      ...['convert', '-f', format, '-O', 'raw', image, raw],
    ]);
    assert.equal(code === 0, qemu === 'reads', `${what}: ${stderr}`);
    if (qemu === 'same') assert.ok(stderr.includes(says), `${what}: ${stderr}`);
  }
  await writeFile(file, good);
}

/** Asserts that an image fails to be opened, or to be read, and looks at the message. */
export async function assertFails(
  file: string,
  format: Compared['format'],
  when: 'opened' | 'read',
  look: (message: string) => void,
): Promise<void> {
  let isOpen = false;
  try {
    await using image = await openImage(file, { format, readOnly: true });
    isOpen = true;
    await image.read(Buffer.alloc(image.size), 0);
  } catch (error) {
    if (!(error instanceof CowherdError)) throw error;
    assert.equal(isOpen ? 'read' : 'opened', when, error.message);
    assert.ok(!error.message.includes('\n'), 'one line');
    look(error.message);
    return;
  }
  assert.fail(`${file} is read as if nothing were wrong`);
}
