/** Twins: the same image in two folders, one for cowherd and one for qemu-img, which have to stay alike. */
import assert from 'node:assert/strict';
import { mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { runCowherd, runQemuImg } from './both-tools.js';
import { runOk, temporaryFolder } from './tools.js';

/** A folder for each program. */
export interface Twins {
  readonly mine: string;
  readonly theirs: string;
}

/** Makes the same image for both programs. */
export async function twins(
  t: TestContext,
  make: (folder: string) => Promise<void>,
): Promise<Twins> {
  const folder = await temporaryFolder(t);
  const [mine, theirs] = ['mine', 'theirs'].map((name) => path.join(folder, name));
  for (const each of [mine, theirs]) {
    await mkdir(each);
    await make(each);
  }
  return { mine, theirs };
}

/** Runs the same words on each; what is said has to be the same. @returns the exit code */
export async function both(
  { mine, theirs }: Twins,
  words: readonly string[],
): Promise<number | null> {
  const expected = await runQemuImg(words, theirs);
  const actual = await runCowherd(words, mine);
  assert.deepEqual(actual, expected, words.join(' '));
  return actual.code;
}

/** Runs qemu-img in a folder, which has to succeed. */
export const qemuImg = (folder: string, ...words: readonly string[]): Promise<string> =>
  runOk('qemu-img', words, { cwd: folder });

/** The images have to be the same: as they are stored, as they read, and in their length. */
export async function assertAlike(
  { mine, theirs }: Twins,
  format: string,
  what: string,
): Promise<void> {
  const facts = async (folder: string): Promise<unknown> => {
    const info = JSON.parse(
      await qemuImg(folder, 'info', '-f', format, '--output=json', 'disk'),
    ) as Record<string, unknown>;
    const map = JSON.parse(
      await qemuImg(folder, 'map', '-f', format, '--output=json', 'disk'),
    ) as readonly MapExtent[];
    return {
      size: info['virtual-size'],
      specific: info['format-specific'],
      extents: asStored(map),
    };
  };
  assert.deepEqual(await facts(mine), await facts(theirs), what);
  if (format === 'qcow2') await qemuImg(mine, 'check', '-q', '-f', format, 'disk');
  await qemuImg(mine, 'compare', '-q', '-f', format, '-F', format, 'disk', `${theirs}/disk`);
  const lengths = await Promise.all(
    [mine, theirs].map(async (each) => (await stat(path.join(each, 'disk'))).size),
  );
  // Refcount blocks that count nothing any more stay here.
  const { 'cluster-size': clusterSize = 0 } = JSON.parse(
    await qemuImg(mine, 'info', '-f', format, '--output=json', 'disk'),
  ) as { readonly 'cluster-size'?: number };
  assert.ok(
    lengths[0] <= lengths[1] + 4 * Math.max(65_536, clusterSize),
    `${what}: ${lengths.join(' and ')} bytes`,
  );
}

interface MapExtent {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly compressed: boolean;
}

/** What the format says of extents: which of the data are a hole of the host, and where they lie, is left out. */
function asStored(extents: readonly MapExtent[]): readonly object[] {
  const stored: { end: number; readonly kind: string; readonly start: number }[] = [];
  for (const { start, length, depth, present, zero, data, compressed } of extents) {
    const kind = JSON.stringify({ depth, present, data, compressed, zero: zero && !data });
    const last = stored.at(-1);
    if (last?.kind === kind) last.end = start + length;
    else stored.push({ start, end: start + length, kind });
  }
  return stored;
}
