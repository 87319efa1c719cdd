/**
 * Encrypted disks. `qemu-img bench` takes no secrets: it asks servers of both programs for the same disk, and our own
 * `bench` races with itself on a plain one, and with what AES alone takes. Conversions go from and to encrypted
 * images in both programs.
 */
import path from 'node:path';
import { compile } from '../bare-program.js';
import { makeHalfFull, smallMib, unlessThere } from '../disks.js';
import type { Duel, Runner } from '../duel.js';
import { benchCowherd, benchServed, encryptedByOneCore, settle, timeQemu } from '../programs.js';
import { benchRunner, nothing } from '../request-runs.js';
import { type StartServer, cowherdServing, qemuServing, withServer } from '../servers.js';
import { Target, converting } from './conversion.js';

const secret = ['--object', 'secret,id=s,data=bench'];
const encrypted = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
/** Of the same requests to a disk that is not encrypted, small ones and large ones. */
const small = 0.6;
const large = 0.3;
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
  const requests = (what: string, goal: number, ...pattern: readonly string[]): Duel => {
    const prepare = pattern.includes('-w') ? settle : nothing;
    const [own, other] = [
      [...secret, ...pattern, '--image-opts', named],
      ['-f', 'qcow2', ...pattern, plain],
    ];
    return {
      ...{ name: `encrypted: ${what}, depth 64`, unit: 'op/s', goal },
      ours: benchRunner('cowherd bench', prepare, own),
      peer: benchRunner('cowherd bench, of a plain disk', prepare, other),
    };
  };
  const served = (what: string, goal: number, ...pattern: readonly string[]): Duel => {
    const runner = (label: string, start: StartServer): Runner => ({
      label,
      run: () => withServer(start, folder, (uri) => benchServed(uri, ...pattern)),
    });
    const words = [...secret, '--image-opts', named];
    return {
      ...{ name: `encrypted: ${what} over NBD, depth 64`, unit: 'op/s', goal },
      ours: runner('cowherd', cowherdServing(words, 1)),
      peer: runner('qemu-nbd', qemuServing(words)),
    };
  };
  const reading = [...secret, '-d', '64', '-c', '40000', '-s', '65536', '--image-opts', named];
  return [
    served('4 KiB reads', 3, '-d', '64', '-c', '200000', '-s', '4096'),
    served('4 KiB overwrites', 3, '-w', '-d', '64', '-c', '100000', '-s', '4096'),
    served('64 KiB reads', 3, '-d', '64', '-c', '20000', '-s', '65536'),
    served('64 KiB overwrites', 3, '-w', '-d', '64', '-c', '20000', '-s', '65536'),
    {
      ...{ name: 'encrypted: cached 64 KiB reads, depth 64', unit: 'MB/s', goal: 0.7 },
      ours: {
        label: 'cowherd bench',
        run: async () => (await benchCowherd(...reading)) * 0.065536,
      },
      peer: { label: 'AES on one core, in OpenSSL', run: encryptedByOneCore },
    },
    requests('cached 4 KiB reads', small, '-d', '64', '-c', '300000', '-s', '4096'),
    requests('4 KiB overwrites', small, '-w', '-d', '64', '-c', '100000', '-s', '4096'),
    requests('cached 64 KiB reads', large, '-d', '64', '-c', '30000', '-s', '65536'),
    requests('64 KiB overwrites', large, '-w', '-d', '64', '-c', '15000', '-s', '65536'),
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
