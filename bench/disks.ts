/** The disks that are converted, checked and measured. */
import { spawnSync } from 'node:child_process';
import { access, open, readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { createImage, openImage } from '../src/index.js';
import { timeQemu } from './programs.js';

const mib = 1024 ** 2;

/** MiB of the disks that are half full, and of the one made of files. */
export const halfFullMib = 4096;
export const smallMib = 512;
export const filesMib = 1024;

/** What makes an image with all its metadata, beside its name and size. */
export const withMetadata = ['-f', 'qcow2', '-o', 'preallocation=metadata'];

/** An 8 TiB image with all its metadata. */
export async function makeMetadata(file: string): Promise<void> {
  await timeQemu('create', '-q', ...withMetadata, file, '8T');
}

/**
 * A chain of three images over one disk, of which each holds half, in places of its own or another's.
 * @returns the topmost
 */
export async function makeChain(folder: string, sizeMib: number): Promise<string> {
  let below: string | undefined;
  for (const [index, name] of ['base', 'middle', 'top'].entries()) {
    const file = path.join(folder, `chain-${name}.qcow2`);
    await createImage(file, {
      format: 'qcow2',
      size: sizeMib * mib,
      ...(below !== undefined && { backingFile: below, backingFormat: 'qcow2' }),
    });
    await using image = await openImage(file);
    const data = new Uint8Array(mib);
    // Quarters by turns: each link shares one with the link below it.
    for (let at = 0; at < sizeMib; at++) {
      const quarter = at % 4;
      if (quarter !== index && quarter !== index + 1) continue;
      for (let word = 0; word < mib; word += 4) data[word] = (at + word + index) & 0xff;
      await image.write(data, at * mib);
    }
    below = file;
  }
  return below!;
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

/** Makes a file that no other case has made. */
export async function unlessThere(file: string, make: () => Promise<unknown>): Promise<void> {
  const there = await access(file).then(
    () => true,
    () => false,
  );
  if (!there) await make();
}
