/**
 * Encrypted disks. `qemu-img bench` takes no secrets, so its requests go to a plain disk; conversions go from and to
 * encrypted images of both programs.
 */
import path from 'node:path';
import { compile } from '../bare-program.js';
import { makeHalfFull, smallMib, unlessThere } from '../disks.js';
import type { Duel, Runner } from '../duel.js';
import { benchQemu, timeQemu, settle } from '../programs.js';
import { benchRunner, nothing } from '../request-runs.js';
import { Target, converting } from './conversion.js';

const secret = ['--object', 'secret,id=s,data=bench'];
const encrypted = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
/** Against the same requests to a disk that is not encrypted. */
const requesting = 1;
const converted = 1.5;

/** Duels over 512 MiB, half of it data. */
export async function encryptionDuels(folder: string): Promise<Duel[]> {
  const inFolder = (name: string): string => path.join(folder, name);
  const [raw, plain, disk] = ['small.raw', 'small.qcow2', 'encrypted.qcow2'].map(inFolder);
  await unlessThere(raw, () => makeHalfFull(raw, smallMib));
  await timeQemu('convert', '-f', 'raw', '-O', 'qcow2', '-S', '0', raw, plain);
  const words = [...secret, '-f', 'raw', '-O', 'qcow2', '-S', '0', '-o', encrypted];
  await timeQemu('convert', ...words, raw, disk);
  const named = `driver=qcow2,encrypt.key-secret=s,file.filename=${disk}`;
  const target = new Target(inFolder('target'), await compile('host-memory', folder));
  const requests = (what: string, ...pattern: readonly string[]): Duel => {
    const prepare = pattern.includes('-w') ? settle : nothing;
    const peer: Runner = {
      label: 'qemu-img bench, of a plain disk',
      run: () => benchQemu(prepare, '-f', 'qcow2', ...pattern, plain),
    };
    const ours = [...secret, ...pattern, '--image-opts', named];
    return {
      ...{ name: `encrypted: ${what}, depth 64`, unit: 'op/s', goal: requesting, peer },
      ours: benchRunner('cowherd bench', prepare, ours),
    };
  };
  return [
    requests('cached 4 KiB reads', '-d', '64', '-c', '300000', '-s', '4096'),
    requests('4 KiB overwrites', '-w', '-d', '64', '-c', '100000', '-s', '4096'),
    requests('cached 64 KiB reads', '-d', '64', '-c', '30000', '-s', '65536'),
    requests('64 KiB overwrites', '-w', '-d', '64', '-c', '15000', '-s', '65536'),
    converting('convert encrypted qcow2 → raw, 512 MiB half full', converted, {
      words: [...secret, '--image-opts', '-O', 'raw'],
      ...{ source: named, target },
    }),
    converting('convert raw → encrypted qcow2, 512 MiB half full', converted, {
      words: [...secret, '-f', 'raw', '-O', 'qcow2', '-o', encrypted],
      ...{ source: raw, target },
    }),
  ];
}
