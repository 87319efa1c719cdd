/** Peak memory of the long commands, above what Node itself takes. */
import path from 'node:path';
import {
  filesMib,
  halfFullMib,
  makeHalfFull,
  makeMetadata,
  makeOfFiles,
  unlessThere,
} from '../disks.js';
import type { Duel } from '../duel.js';
import { peakMemory, timeQemu } from '../programs.js';

const boundMib = 200;
const there = ['-f', 'raw', '-O', 'qcow2'];
const back = ['-f', 'qcow2', '-O', 'raw'];
const direct = ['-t', 'none', '-T', 'none'];
const zstd = ['-o', 'compression_type=zstd'];
const large = ['-o', 'cluster_size=2M'];

/** One duel a command, against the bound; files that other cases have made are used again. */
export async function memoryDuels(folder: string): Promise<Duel[]> {
  const metadata = path.join(folder, 'metadata.qcow2');
  const files = path.join(folder, 'files.raw');
  const half = path.join(folder, 'half.raw');
  const halfQcow2 = path.join(folder, 'half.qcow2');
  const packed = path.join(folder, 'packed.qcow2');
  const target = path.join(folder, 'target');
  await unlessThere(metadata, () => makeMetadata(metadata));
  await unlessThere(files, () => makeOfFiles(files, filesMib));
  await unlessThere(half, () => makeHalfFull(half, halfFullMib));
  await unlessThere(halfQcow2, () => timeQemu('convert', ...there, half, halfQcow2));
  const bare = await peakMemory();
  const commands: readonly (readonly [string, readonly string[]])[] = [
    ['check of 8 TiB', ['check', '-q', metadata]],
    ['map of 8 TiB', ['map', '--output=json', metadata]],
    ['convert raw → qcow2', ['convert', ...there, half, target]],
    ['convert qcow2 → raw', ['convert', ...back, halfQcow2, target]],
    ['convert qcow2 → qcow2', ['convert', '-f', 'qcow2', '-O', 'qcow2', halfQcow2, target]],
    ['convert raw → raw', ['convert', '-f', 'raw', '-O', 'raw', half, target]],
    ['convert raw → qcow2, direct', ['convert', ...there, ...direct, half, target]],
    ['convert qcow2 → raw, direct', ['convert', ...back, ...direct, halfQcow2, target]],
    ['convert raw → qcow2, any order', ['convert', ...there, '-W', half, target]],
    ['compare 4 GiB', ['compare', '-f', 'raw', '-F', 'qcow2', half, halfQcow2]],
    ['compress 1 GiB, zlib', ['convert', ...there, '-c', files, packed]],
    ['decompress zlib', ['convert', ...back, packed, target]],
    ['compress 1 GiB, zstd', ['convert', ...there, '-c', ...zstd, files, packed]],
    ['decompress zstd', ['convert', ...back, packed, target]],
    ['compress 1 GiB, clusters of 2 MiB', ['convert', ...there, '-c', ...large, files, target]],
  ];
  return commands.map(([name, parameters]) => ({
    name: `peak MiB above Node’s own: ${name}`,
    unit: 's',
    goal: 1,
    rounds: 1,
    ours: { label: 'cowherd', run: async () => (await peakMemory(...parameters)) - bare },
    peer: { label: 'the bound', run: () => Promise.resolve(boundMib) },
  }));
}
