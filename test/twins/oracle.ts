/**
 * Compares the images of a pair: what both programs tell of ours is the same to the letter; and what the real
 * tool tells of ours and of its own is the same but for places in the file, as is what the guest reads.
 */
import assert from 'node:assert/strict';
import { openImage } from '../../src/index.js';
import { runCowherd } from '../support/both-tools.js';
import { type RunResult } from '../support/tools.js';
import { comparable, countsOf, factsOf, storedAs } from './comparable.js';
import { PeerLeaks, onlyPeerLeaks } from './exceptions.js';
import {
  type Geometry,
  diskOptions,
  diskWords,
  hidesPlaces,
  isEncrypted,
  secretWords,
} from './geometry.js';
import type { Pair } from './pair.js';
import { type Reports, peerReports, reportNames, runPeer } from './peer.js';
import type { DiskFacts, PairedImage } from './step.js';

/** How much of an image is the same beyond what has to be. */
export interface Likeness {
  /** Whether all data lie at the same places. */
  readonly samePlaces: boolean;
  readonly disk: DiskFacts;
}

/** Asserts that the disks are alike. */
export async function compareDisks(pair: Pair, geometry: Geometry): Promise<Likeness> {
  const words = diskWords(geometry);
  const [ours, others, content] = await Promise.all([
    peerReports(words, pair.mine),
    peerReports(words, pair.theirs),
    runPeer(
      [
        ...['compare', ...secretWords(geometry), '--image-opts'],
        ...[diskOptions(geometry), diskOptions(geometry, '../theirs/')],
      ],
      pair.mine,
    ),
  ]);
  for (const report of reportNames) {
    const { stdout, stderr, code } = await runCowherd(
      [report, '--output=json', ...words],
      pair.mine,
    );
    const told = { stdout: stderr + stdout, stderr: '', code };
    assert.deepEqual(
      exactly(told, geometry),
      exactly(ours[report], geometry),
      `${report} of the same disk`,
    );
  }
  assertReportsAlike(ours, others, 'disk', pair.isStoredOtherwise);
  assert.deepEqual(content, { stdout: 'Images are identical.\n', stderr: '', code: 0 });
  await compareBitmaps(pair, geometry, ours.info.stdout);
  const samePlaces = ours.map.stdout === others.map.stdout;
  return { samePlaces, disk: diskFacts(others, pair) };
}

function diskFacts({ info: told, check }: Reports, { isStoredOtherwise }: Pair): DiskFacts {
  const { stdout: text } = told;
  const info = JSON.parse(text) as Readonly<Record<string, unknown>>;
  return {
    bytes: info['virtual-size'] as number,
    clusterBytes: info['cluster-size'] as number,
    backing: info['backing-filename'] as string | undefined,
    refcountBits: Number(/"refcount-bits": (\d+)/.exec(text)?.[1]),
    isVersion2: text.includes('"compat": "0.10"'),
    hasSnapshots: text.includes('"snapshots"'),
    hasCompressed: /"compressed-clusters": [1-9]/.test(check.stdout),
    hasBitmaps: text.includes('"bitmaps"'),
    isStoredOtherwise,
  };
}

/** Asserts that other images are alike. */
export async function compareImages(pair: Pair, images: readonly PairedImage[]): Promise<void> {
  for (const { name, format, isStoredOtherwise = false } of images) {
    const content = await runPeer(
      ['compare', '-f', format, '-F', format, name, `../theirs/${name}`],
      pair.mine,
    );
    assert.deepEqual(content, { stdout: 'Images are identical.\n', stderr: '', code: 0 }, name);
    if (format !== 'qcow2') continue;
    const words = ['-f', format, name];
    const [ours, others] = await Promise.all([
      peerReports(words, pair.mine),
      peerReports(words, pair.theirs),
    ]);
    assertReportsAlike(ours, others, name, pair.isStoredOtherwise || isStoredOtherwise);
  }
}

function assertReportsAlike(
  ours: Reports,
  others: Reports,
  name: string,
  isStoredOtherwise: boolean,
): void {
  if (onlyPeerLeaks(ours.check, others.check)) throw new PeerLeaks(name);
  for (const report of reportNames) {
    assert.equal(ours[report].code, others[report].code, `${report} of ${name}`);
  }
  if (others.info.code === 0) {
    assert.deepEqual(factsOf(ours.info.stdout), factsOf(others.info.stdout), `info of ${name}`);
  }
  if (isStoredOtherwise) return;
  if (others.map.code === 0) {
    assert.deepEqual(storedAs(ours.map.stdout), storedAs(others.map.stdout), `map of ${name}`);
  }
  if (others.check.code === 0) {
    assert.deepEqual(
      countsOf(ours.check.stdout),
      countsOf(others.check.stdout),
      `check of ${name}`,
    );
  }
}

/** A report as it stands, but for how much the host has written of the file yet. */
function exactly(result: RunResult, geometry: Geometry): RunResult {
  const { stdout, stderr, code } = comparable(result);
  const text = stdout
    .replaceAll(/"actual-size": \d+/g, '')
    // QEMU names what was given a secret by a list of all options, in an order of its own.
    .replaceAll(/"json:\{.*\}"/g, '"disk"');
  return {
    stdout: hidesPlaces(geometry) ? text.replaceAll(/, "offset": \d+/g, '') : text,
    stderr,
    code,
  };
}

/** What was recorded is the same: only this program tells of single bits. */
async function compareBitmaps(pair: Pair, geometry: Geometry, info: string): Promise<void> {
  if (!info.includes('"bitmaps"')) return;
  const told = (folder: string) => bitsOf(folder, geometry, !pair.isRecordedOtherwise);
  const [ours, others] = [await told(pair.mine), await told(pair.theirs)];
  assert.deepEqual(ours, others, 'bitmaps');
}

async function bitsOf(folder: string, geometry: Geometry, hasRanges: boolean): Promise<unknown> {
  const before = process.cwd();
  process.chdir(folder);
  try {
    const encrypt = isEncrypted(geometry) ? { encrypt: { secret: 'of twins' } } : {};
    await using image = await openImage('disk', { format: 'qcow2', ...encrypt });
    const all: unknown[] = [];
    for (const state of await image.bitmaps.list()) {
      const ranges: unknown[] = [];
      if (hasRanges) {
        for await (const range of image.bitmaps.dirtyRanges(state.name)) ranges.push(range);
      }
      all.push({ ...state, ranges });
    }
    return all;
  } finally {
    process.chdir(before);
  }
}
