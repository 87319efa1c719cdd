/** The disks that are converted, checked and measured. */
import { spawnSync } from 'node:child_process';
import { open, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { timeQemu } from './programs.js';

const mib = 1024 ** 2;

/** MiB of the disk that is half full, and of the one made of files. */
export const halfFullMib = 4096;
export const filesMib = 1024;

/** What makes an image with all its metadata, beside its name and size. */
export const withMetadata = ['-f', 'qcow2', '-o', 'preallocation=metadata'];

/** An 8 TiB image with all its metadata. */
export async function makeMetadata(file: string): Promise<void> {
  await timeQemu('create', '-q', ...withMetadata, file, '8T');
}

/** A disk of which every other MiB holds data that does not repeat. */
export async function makeHalfFull(file: string, sizeMib: number): Promise<void> {
  const disk = await open(file, 'w');
  await disk.truncate(sizeMib * mib);
  const data = new Uint32Array(mib / 4);
  let state = 1;
  for (let at = 0; at < sizeMib; at += 2) {
    for (let index = 0; index < data.length; index++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      data[index] = state;
    }
    await disk.write(new Uint8Array(data.buffer), 0, mib, at * mib);
  }
  await disk.close();
}

/** A disk of real files, one after the other: what this machine's programs and libraries hold. */
export async function makeOfFiles(file: string, sizeMib: number): Promise<void> {
  const disk = await open(file, 'w');
  let at = 0;
  const end = sizeMib * mib;
  outer: for (;;) {
    for (const folder of ['/usr/lib', '/usr/bin', '/usr/share']) {
      const entries = await readdir(folder, { recursive: true, withFileTypes: true });
      for (const entry of entries) {
        if (!entry.isFile()) continue;
        const source = path.join(entry.parentPath, entry.name);
        const { size } = await stat(source).catch(() => ({ size: 0 }));
        if (size < 4096 || size > 256 * mib) continue;
        const content = await readFile(source).catch(() => Buffer.alloc(0));
        await disk.write(content.subarray(0, Math.min(content.length, end - at)), 0, undefined, at);
        at = Math.min(end, Math.ceil((at + content.length) / 4096) * 4096);
        if (at === end) break outer;
      }
    }
  }
  await disk.truncate(end);
  await disk.close();
  spawnSync('sync');
}
