/** Conversions against qemu-img, with its defaults and with its best options. */
import path from 'node:path';
import { filesMib, halfFullMib, makeHalfFull, makeOfFiles } from '../disks.js';
import type { Duel } from '../duel.js';
import { settle, timeCowherd, timeNode, timeQemu } from '../programs.js';

const best = ['-m', '16', '-W'];

/** Duels over a 4 GiB disk half full, 1 GiB of files, and an empty TiB. */
export async function convertDuels(folder: string): Promise<Duel[]> {
  const raw = path.join(folder, 'half.raw');
  const qcow2 = path.join(folder, 'half.qcow2');
  const files = path.join(folder, 'files.raw');
  const empty = path.join(folder, 'tib.qcow2');
  await makeHalfFull(raw, halfFullMib);
  await timeQemu('convert', '-f', 'raw', '-O', 'qcow2', ...best, raw, qcow2);
  await makeOfFiles(files, filesMib);
  await timeQemu('create', '-q', '-f', 'qcow2', empty, '1T');
  const target = path.join(folder, 'target');
  const duel = (
    name: string,
    goal: number,
    common: readonly string[],
    peerOnly: readonly string[],
    source: string,
  ): Duel => ({
    name,
    unit: 's',
    goal,
    ours: {
      label: 'cowherd',
      run: async () => (await settle(), timeCowherd('convert', ...common, source, target)),
    },
    peer: {
      label: `qemu-img ${peerOnly.join(' ')}`.trim(),
      run: async () => (
        await settle(),
        timeQemu('convert', ...common, ...peerOnly, source, target)
      ),
    },
  });
  const there = ['-f', 'raw', '-O', 'qcow2'];
  const back = ['-f', 'qcow2', '-O', 'raw'];
  const direct = ['-t', 'none', '-T', 'none'];
  const zstd = ['-o', 'compression_type=zstd'];
  const duels = [
    duel('convert raw → qcow2, 4 GiB half full', 3, there, [], raw),
    duel('convert raw → qcow2, against the best', 1.2, there, best, raw),
    duel('convert qcow2 → raw, 4 GiB half full', 3, back, [], qcow2),
    duel('convert qcow2 → raw, against the best', 1.2, back, best, qcow2),
    duel('convert raw → qcow2 direct, against the best', 1.2, [...there, ...direct], best, raw),
    duel('convert qcow2 → raw direct, against the best', 1.2, [...back, ...direct], best, qcow2),
    duel('compress 1 GiB, zlib', 2.5, [...there, '-c'], [], files),
    duel('compress 1 GiB, zlib, against the best', 1.4, [...there, '-c'], best, files),
    duel('compress 1 GiB, zstd', 2, [...there, '-c', ...zstd], [], files),
    duel('compress 1 GiB, zstd, against the best', 1.2, [...there, '-c', ...zstd], best, files),
  ];
  for (const type of ['zlib', 'zstd']) {
    const packed = path.join(folder, `files.${type}.qcow2`);
    const option = `compression_type=${type}`;
    await timeQemu('convert', ...there, '-c', ...best, '-o', option, files, packed);
    duels.push(duel(`decompress ${type}, against the best`, 1.3, back, best, packed));
  }
  duels.push({
    name: 'convert an empty TiB: seconds beyond Node’s start, of 0.2',
    unit: 's',
    goal: 1,
    ours: {
      label: 'cowherd',
      run: async () =>
        (await timeCowherd('convert', '-O', 'qcow2', empty, target)) - (await timeNode()),
    },
    peer: { label: 'the bound', run: () => Promise.resolve(0.2) },
  });
  return duels;
}
