/** The same images for the real qemu-img and for this program, each of which then does the same to its own. */
import assert from 'node:assert/strict';
import { mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { runCowherd, runQemuImg } from './both-tools.js';
import { run, runOk, temporaryFolder } from './tools.js';

/** The folders of this program and of the other. */
export interface Twins {
  readonly mine: string;
  readonly theirs: string;
}

/** Makes the same in two folders. */
export async function makeTwins(
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
export async function runBoth(
  { mine, theirs }: Twins,
  words: readonly string[],
): Promise<number | null> {
  const expected = await runQemuImg(words, theirs);
  const actual = await runCowherd(words, mine);
  assert.deepEqual(actual, expected, words.join(' '));
  return actual.code;
}

/** Runs the real qemu-img in a folder. */
export function qemuImg(folder: string, ...words: readonly string[]): Promise<string> {
  return runOk('qemu-img', words, { cwd: folder });
}

/** Runs commands of qemu-io on an image. */
export async function qemuIo(
  folder: string,
  format: string,
  image: string,
  ...commands: readonly string[]
): Promise<void> {
  const words = commands.flatMap((command) => ['-c', command]);
  await runOk('qemu-io', ['-f', format, ...words, image], { cwd: folder });
}

/** An image of a twin. */
export interface NamedImage {
  readonly name: string;
  readonly format: string;
  /** Whether ours may be longer, since what was given up was not there yet when clusters were taken. */
  readonly isOverwritten?: boolean;
  /** Clusters, of 64 KiB at least, by which ours may be longer: refcount blocks that count nothing any more stay. */
  readonly slackClusters?: number;
  /** Whether ours may be stored in another way. */
  readonly isStoredOtherwise?: boolean;
}

/**
 * Asserts that images are the same in both folders: what `info` tells, how they are stored, and what they hold;
 * and that ours are without a fault, and no longer.
 */
export async function assertTwins(
  { mine, theirs }: Twins,
  images: readonly NamedImage[],
  what: string,
): Promise<void> {
  for (const image of images) {
    const { name, format, isOverwritten, slackClusters = 0, isStoredOtherwise = false } = image;
    const label = `${what}: ${name}`;
    const [facts, others] = await Promise.all(
      [mine, theirs].map((folder) => factsOf(folder, name, format, !isStoredOtherwise)),
    );
    assert.deepEqual(facts, others, label);
    const { code, stdout } = await run('qemu-img', ['check', '-f', format, name], { cwd: mine });
    assert.ok(code === 0 || code === 63, `${label}: ${stdout}`);
    // A data file is looked for in the working directory.
    for (const folder of [mine, theirs]) {
      await qemuImg(folder, 'convert', '-f', format, '-O', 'raw', name, `${name}.content`);
    }
    const contents = [mine, theirs].map((folder) => path.join(folder, `${name}.content`));
    assert.equal((await run('cmp', contents)).stdout, '', label);
    if (isOverwritten === true) continue;
    const [ours, other] = await Promise.all(
      [mine, theirs].map(async (each) => (await stat(path.join(each, name))).size),
    );
    const slackBytes = slackClusters * Math.max(65_536, facts.clusterSize ?? 0);
    assert.ok(ours <= other + slackBytes, `${label}: ${ours} bytes, and ${other}`);
  }
}

/** What two images are compared by. */
interface ImageFacts {
  readonly size: unknown;
  readonly clusterSize: number | undefined;
  readonly backing: unknown;
  readonly backingFormat: unknown;
  readonly specific: unknown;
  readonly extents: unknown;
}

/** An extent that `map` tells, with whatever else it says of it. */
interface Stored {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
  readonly data: boolean;
}

async function factsOf(
  folder: string,
  name: string,
  format: string,
  isMapped: boolean,
): Promise<ImageFacts> {
  const words = ['-f', format, '--output=json', name];
  const info = JSON.parse(await qemuImg(folder, 'info', ...words)) as Record<string, unknown>;
  const map = JSON.parse(await qemuImg(folder, 'map', ...words)) as readonly Stored[];
  return {
    size: info['virtual-size'],
    clusterSize: info['cluster-size'] as number | undefined,
    backing: info['backing-filename'],
    backingFormat: info['backing-filename-format'],
    specific: info['format-specific'],
    // Writes that are under way side by side take their places in any order.
    // Which of the data are a hole of the host is the host's business.
    extents:
      isMapped &&
      joined(map.map((each) => ({ ...each, offset: undefined, zero: each.zero && !each.data }))),
  };
}

/** Extents of which neighbours that differ in their place alone are one. */
function joined(extents: readonly Stored[]): readonly Stored[] {
  const all: Stored[] = [];
  for (const extent of extents) {
    const last = all.at(-1);
    const kind = (each: Stored): string => JSON.stringify({ ...each, start: 0, length: 0 });
    if (last !== undefined && kind(last) === kind(extent)) {
      all[all.length - 1] = { ...last, length: last.length + extent.length };
    } else all.push(extent);
  }
  return all;
}
