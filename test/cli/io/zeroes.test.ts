/** Zeroes over parts of clusters are stored as QEMU stores them: as clusters of zeroes where the rest is zero. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { assertAlike, bothRun, ioTwins } from '../../support/io-twins.js';
import { needsTool, runOk } from '../../support/tools.js';
import { storedAs } from '../../twins/comparable.js';

interface Disk {
  /** What its image is made with. */
  readonly options: readonly string[];
  /** Where data lie in the image below; undefined if there is none. */
  readonly below?: readonly string[];
}

const dataBelow = [
  'write -P 7 32k 1k',
  'write -P 7 107k 1k',
  'write -P 7 5k 2k',
  'write -z 200k 8k',
];

const disks: Readonly<Record<string, Disk>> = {
  'nothing below': { options: [] },
  'an image below': { options: ['-o', 'cluster_size=4k'], below: dataBelow },
  'subclusters over an image': { options: ['-o', 'extended_l2=on'], below: dataBelow },
  'a raw file with holes below': { options: ['-o', 'cluster_size=8k'], below: dataBelow },
};

/** Beside the data below and away from them, in one cluster and over several, and up to the end. */
const lines = [
  ...[
    'write -z 33k 1k',
    'write -z 34k 4k',
    'write -z 106k 1k',
    'write -z 108k 20k',
    'write -z 5k 2k',
  ],
  ...['write -z 150k 1', 'write -z -u 201k 1k', 'write -P 3 160k 1k', 'write -z 161k 1k'],
  ...['write -z -u 160k 1k', 'write -c -P 4 192k 64k', 'write -z 195k 3k', 'write -z 255k 1k'],
  ...['write -z 383k 513', 'write -z 280k 110k', 'write -z 271k 1k', 'discard 256k 64k'],
  ...['write -z 257k 1k', 'write -z 299k 100k', 'write -P 9 300k 5', 'write -z 300k 5'],
];

for (const [name, { options, below }] of Object.entries(disks)) {
  test(`zeroes over parts of clusters, with ${name}`, async (t) => {
    if (!needsTool(t, 'qemu-img', 'qemu-io')) return;
    const format = name.includes('raw') ? 'raw' : 'qcow2';
    const twins = await ioTwins(t, async (folder) => {
      const made = (words: readonly string[]): Promise<string> =>
        runOk('qemu-img', ['create', '-q', ...words], { cwd: folder });
      if (below !== undefined) {
        // It ends within a cluster of the image above.
        await made(['-f', format, 'below', '270k']);
        const given = below.flatMap((line) => ['-c', line]);
        await runOk('qemu-io', ['-f', format, ...given, 'below'], { cwd: folder });
      }
      const over = below === undefined ? [] : ['-b', 'below', '-F', format];
      await made(['-f', 'qcow2', ...options, ...over, 'disk', '399k']);
    });
    for (const line of lines) {
      await bothRun(twins, [line], ['disk']);
      const [mine, theirs] = await Promise.all(
        [twins.mine, twins.theirs].map(async (folder) => stored(path.join(folder, 'disk'))),
      );
      assert.deepEqual(mine, theirs, line);
    }
    await assertAlike(twins, 'disk', 'qcow2', name);
  });
}

/** How the real tool says that a disk is stored. */
async function stored(name: string): Promise<unknown> {
  return storedAs(await runOk('qemu-img', ['map', '-f', 'qcow2', '--output=json', name]));
}
