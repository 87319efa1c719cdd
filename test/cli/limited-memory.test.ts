/** Conversions and comparisons of compressed images in the memory of a small container. */
import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { limitedMemory } from '../support/memory-group.js';
import {
  cowherdProgram,
  needsTool,
  run,
  runOk,
  skipsSanitizer,
  temporaryFolder,
} from '../support/tools.js';

const mib = 1024 * 1024;
const limitBytes = 64 * mib;
const diskMib = 128;

/** A disk of which half can be compressed, with no hole. */
async function disk(folder: string): Promise<string> {
  const file = path.join(folder, 'disk.raw');
  const handle = await open(file, 'w');
  const data = randomFillSync(Buffer.alloc(mib));
  for (let at = 0; at < diskMib; at += 1) {
    data.fill(at, 0, mib / 2);
    await handle.write(data, 0, mib, at * mib);
  }
  await handle.sync();
  await handle.close();
  return file;
}

const kinds = [
  ['zlib, clusters of 64 KiB', 'compression_type=zlib'],
  ['zstd, clusters of 2 MiB', 'compression_type=zstd,cluster_size=2M'],
] as const;

test('64 MiB are enough to compress, decompress, compare and read', async (t) => {
  if (!needsTool(t, 'qemu-img')) return;
  if (skipsSanitizer(t, 'shadow memory is memory too')) return;
  const limited = await limitedMemory(t, limitBytes);
  if (limited === undefined) return;
  const [command, ...before] = limited;
  const folder = await temporaryFolder(t);
  const raw = await disk(folder);
  const target = path.join(folder, 'target');
  const small = async (...words: string[]): Promise<void> => {
    const all = [...before, process.execPath, cowherdProgram, ...words];
    const { code, stderr } = await run(command, all);
    assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
  };
  const packed = path.join(folder, 'packed.qcow2');
  for (const [name, options] of kinds) {
    await small('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, raw, packed);
    await runOk('qemu-img', ['check', '-q', packed]);
    await runOk('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', raw, packed]);
    await small('convert', '-f', 'qcow2', '-O', 'raw', packed, target);
    await runOk('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'raw', raw, target]);
    await small('compare', '-q', '-f', 'raw', '-F', 'qcow2', raw, packed);
    // 64 at a time, each in another cluster, of which each needs 2 MiB.
    await small('bench', '-f', 'qcow2', '-c', '2000', '-S', String(2 * mib + 4096), packed);
    t.diagnostic(`${name}: done`);
  }
  await small('convert', '-c', '-f', 'qcow2', '-O', 'qcow2', packed, target);
  await runOk('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', raw, target]);
});
