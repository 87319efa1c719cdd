/** Conversions from and to other formats, and from a web server, against qemu-img at its best. */
import path from 'node:path';
import { compile } from '../bare-program.js';
import { filesMib, halfFullMib, makeHalfFull, makeOfFiles, unlessThere } from '../disks.js';
import type { Duel } from '../duel.js';
import { settle, timeQemu } from '../programs.js';
import { serveFolder } from '../web-server.js';
import { Target, converting } from './conversion.js';

const intoQcow2 = 1.2;
const packing = 1.5;
const fetching = 1.5;
const streamOptimized = ['-O', 'vmdk', '-o', 'subformat=streamOptimized'];

/** qemu-img 10 asks a web server for one range or two at a time; with more it hangs, most of the time. */
const webConversions: readonly WebConversion[] = [
  {
    from: 'raw',
    to: 'qcow2',
    ways: [
      ['-m', '1'],
      ['-m', '2'],
    ],
  },
  {
    from: 'qcow2',
    to: 'raw',
    ways: [
      ['-m', '1'],
      ['-m', '2'],
    ],
  },
];

interface WebConversion {
  readonly from: string;
  readonly to: string;
  readonly ways: readonly (readonly string[])[];
}

/** Duels over a 4 GiB disk half full in each format, 1 GiB of files packed and unpacked, and URLs. */
export async function formatDuels(folder: string): Promise<Duel[]> {
  const inFolder = (name: string): string => path.join(folder, name);
  const [raw, qcow2, files, packed] = ['half.raw', 'half.qcow2', 'files.raw', 'files.vmdk'].map(
    inFolder,
  );
  const target = new Target(inFolder('target'), await compile('host-memory', folder));
  await unlessThere(raw, () => makeHalfFull(raw, halfFullMib));
  await unlessThere(qcow2, () => timeQemu('convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2));
  await unlessThere(files, () => makeOfFiles(files, filesMib));
  await timeQemu('convert', '-f', 'raw', ...streamOptimized, files, packed);
  const duels: Duel[] = [];
  for (const format of ['vmdk', 'vhdx', 'vpc', 'vdi']) {
    const source = inFolder(`half.${format}`);
    await timeQemu('convert', '-f', 'raw', '-O', format, raw, source);
    const words = ['-f', format, '-O', 'qcow2'];
    duels.push(
      converting(`convert ${format} → qcow2, 4 GiB half full`, intoQcow2, {
        words,
        source,
        target,
      }),
    );
  }
  const packingDuels = [
    converting('convert raw → streamOptimized vmdk, 1 GiB of files', packing, {
      words: ['-f', 'raw', ...streamOptimized],
      ...{ source: files, target, ways: [[], ['-m', '16']] },
    }),
    converting('convert streamOptimized vmdk → raw, 1 GiB of files', packing, {
      words: ['-f', 'vmdk', '-O', 'raw'],
      ...{ source: packed, target },
    }),
  ];
  duels.push(...packingDuels.map((duel) => ({ ...duel, rounds: 3 })));
  const server = await serveFolder(folder);
  if (server !== undefined) {
    for (const { from, to, ways } of webConversions) {
      const name = `convert ${from} behind http:// → ${to}, 4 GiB half full`;
      const fetched = converting(name, fetching, {
        words: ['-f', from, '-O', to],
        ...{ source: `${server.address}/half.${from}`, target, mostSeconds: 12, ways },
      });
      duels.push({ ...fetched, rounds: 3 });
    }
  }
  await settle();
  return duels;
}
