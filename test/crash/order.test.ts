/**
 * The order in which data and what points at them reach the disk: a power cut never shows a guest
 * what it had overwritten and flushed, nor what belongs elsewhere.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { examine } from './examination.js';
import { type Workload, record } from './recording.js';

const cases: readonly Workload[] = [
  {
    name: 'a write into a zeroed cluster that kept its place',
    image: { clusterSize: 4096 },
    sectors: 2048,
    before: (disk) => disk.write(0, 8),
    run: async (disk) => {
      await disk.zero(0, 8, false);
      await disk.flush();
      await disk.write(0, 8);
      await disk.flush();
    },
  },
  {
    name: 'a write into clusters that another place of the disk has given up',
    image: { clusterSize: 4096 },
    sectors: 2048,
    before: async (disk) => {
      await disk.write(0, 512);
      // What a discard gives up is punched, and has nothing to show.
      for (let sector = 16; sector < 256; sector += 8) await disk.compress(sector);
    },
    run: async (disk) => {
      await disk.write(1024, 8);
      await disk.flush();
      await disk.write(1040, 8);
      await disk.flush();
    },
  },
  {
    name: 'a whole cluster above a backing file',
    image: { clusterSize: 4096 },
    sectors: 2048,
    backedSectors: 512,
    run: async (disk) => {
      await disk.write(0, 8);
      await disk.flush();
      await disk.write(8, 8);
      await disk.write(16, 16);
      await disk.flush();
    },
  },
  {
    name: 'compressed clusters',
    image: { clusterSize: 4096 },
    sectors: 2048,
    run: async (disk) => {
      await disk.write(0, 8);
      await disk.flush();
      await disk.compress(8);
      await disk.flush();
    },
  },
  {
    name: 'a subcluster of a cluster written in part',
    image: { clusterSize: 16384, extendedL2: true },
    sectors: 2048,
    backedSectors: 1024,
    run: async (disk) => {
      await disk.write(0, 3);
      await disk.flush();
      await disk.write(8, 2);
      await disk.write(32, 32);
      await disk.flush();
    },
  },
  {
    name: 'an external data file',
    image: { clusterSize: 4096 },
    sectors: 2048,
    dataFile: true,
    before: (disk) => disk.write(0, 24),
    run: async (disk) => {
      await disk.zero(0, 8, false);
      await disk.discard(8, 8);
      await disk.flush();
      await disk.write(0, 16);
      await disk.flush();
    },
  },
  {
    name: 'the file grows before an entry points into it',
    image: { clusterSize: 4096, lazyRefcounts: true },
    sectors: 2048,
    run: async (disk) => {
      await disk.write(0, 8);
      await disk.flush();
      await disk.write(8, 600);
      await disk.flush();
    },
  },
];

for (const workload of cases) {
  test(`data reach the disk before what shows them: ${workload.name}`, async () => {
    for (let seed = 1; seed <= 3; seed++) {
      const { failures } = await examine(await record(workload, seed), {
        engineEvery: 1000,
        realEvery: 0,
      });
      assert.deepEqual(failures, []);
    }
  });
}
