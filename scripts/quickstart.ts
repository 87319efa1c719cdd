/**
 * The main job on real input, with figures: a raw disk with a file system becomes a qcow2 image and
 * a raw disk again, checked and compared; where qemu-img is installed it judges, and races.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, rmSync } from 'node:fs';
import { mkdtemp, readdir, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ConvertOptions, compare, convert, openImage } from '../src/index.js';
import { type DiskFile, makeFatDisk } from './fat16.js';

const mib = 1024 * 1024;
const diskBytes = 1024 * mib;
const fileBytesWanted = 384 * mib;
const project = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..', '..');

const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-quickstart-'));
process.on('SIGINT', () => process.exit(130));
process.on('exit', () => {
  rmSync(folder, { recursive: true, force: true });
});
await main();

async function main(): Promise<void> {
  const raw = path.join(folder, 'disk.raw');
  const qcow2 = path.join(folder, 'disk.qcow2');
  const back = path.join(folder, 'back.raw');

  const files = await realFiles();
  await makeFatDisk(raw, diskBytes, files);
  say(`a raw disk of ${inMib(diskBytes)} with a FAT16 file system of ${files.length} files`);

  const there = await timedConvert('raw → qcow2', raw, qcow2, { from: 'raw', to: 'qcow2' });
  const andBack = await timedConvert('qcow2 → raw', qcow2, back, { from: 'qcow2', to: 'raw' });

  const image = await openImage(qcow2, { readOnly: true });
  const check = await image.check();
  await image.close();
  say(
    `check: ${check.corruptions} corruptions, ${check.leaks} leaks, ${check.allocatedClusters} of ${check.totalClusters} clusters allocated`,
  );
  const same = await compare(raw, qcow2, { formatA: 'raw', formatB: 'qcow2' });
  say(`compare: ${same.identical ? 'the contents are identical' : 'THE CONTENTS DIFFER'}`);
  const identical = (await sha256(raw)) === (await sha256(back));
  say(`back again: ${identical ? 'bit-identical' : 'CHANGED'}`);
  for (const file of [raw, qcow2, back]) {
    const { size, blocks } = await stat(file);
    say(`  ${path.basename(file).padEnd(11)} ${inMib(size)} long, ${inMib(blocks * 512)} on disk`);
  }
  const sound = judgeWithQemu(raw, qcow2, there, andBack);
  if (!sound || !same.identical || !identical || check.corruptions + check.leaks > 0) {
    process.exitCode = 1;
  }
}

/** This project's tools and Node itself: enough real files to be worth converting. */
async function realFiles(): Promise<DiskFile[]> {
  const candidates = [process.execPath, process.execPath, process.execPath];
  for (const place of ['node_modules/typescript/lib', 'src', 'dist/src']) {
    const entries = await readdir(path.join(project, place), {
      recursive: true,
      withFileTypes: true,
    });
    for (const entry of entries) {
      if (entry.isFile()) candidates.push(path.join(entry.parentPath, entry.name));
    }
  }
  const files: DiskFile[] = [];
  let total = 0;
  for (const source of candidates) {
    const { size } = await stat(source);
    if (total + size > fileBytesWanted || files.length === 500) continue;
    total += size;
    files.push({ name: `FILE${String(files.length).padStart(4, '0')}.DAT`, source });
  }
  return files;
}

/** Converts with a progress bar. @returns seconds */
async function timedConvert(
  label: string,
  source: string,
  target: string,
  options: ConvertOptions,
): Promise<number> {
  const start = performance.now();
  let shown = 0;
  await convert(source, target, {
    ...options,
    onProgress: ({ doneBytes, totalBytes }) => {
      const now = performance.now();
      if (!process.stdout.isTTY || (now - shown < 50 && doneBytes < totalBytes)) return;
      shown = now;
      const filled = Math.round((30 * doneBytes) / totalBytes);
      process.stdout.write(`\r${label} [${'#'.repeat(filled).padEnd(30)}]`);
    },
  });
  const seconds = (performance.now() - start) / 1000;
  if (process.stdout.isTTY) process.stdout.write('\r');
  else say(`${label} [${'#'.repeat(30)}]`);
  say(`${label}: ${seconds.toFixed(2)} s, ${inMib(diskBytes / seconds)}/s`.padEnd(50));
  return seconds;
}

/** @returns false if qemu-img is there and finds fault */
function judgeWithQemu(raw: string, qcow2: string, there: number, andBack: number): boolean {
  if (spawnSync('qemu-img', ['--version']).status !== 0) {
    say('qemu-img is not installed, so nobody else has judged');
    return true;
  }
  const checked = spawnSync('qemu-img', ['check', '-q', '-f', 'qcow2', qcow2]).status === 0;
  const compared =
    spawnSync('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'qcow2', raw, qcow2]).status === 0;
  say(
    `qemu-img check: ${checked ? 'no errors' : 'FAULTS'}; compare: ${compared ? 'identical' : 'DIFFERENT'}`,
  );
  const time = (...parameters: string[]): number => {
    const start = performance.now();
    spawnSync('qemu-img', ['convert', ...parameters]);
    return (performance.now() - start) / 1000;
  };
  const theirs = path.join(folder, 'theirs');
  const ratio = (label: string, ours: number, seconds: number): void => {
    say(
      `  ${label}: qemu-img takes ${seconds.toFixed(2)} s, cowherd is ${(seconds / ours).toFixed(1)} times as fast`,
    );
  };
  ratio('raw → qcow2', there, time('-f', 'raw', '-O', 'qcow2', raw, theirs));
  ratio('qcow2 → raw', andBack, time('-f', 'qcow2', '-O', 'raw', qcow2, theirs));
  return checked && compared;
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: mib })) {
    hash.update(chunk as Buffer);
  }
  return hash.digest('hex');
}

function inMib(bytes: number): string {
  return `${(bytes / mib).toFixed(0)} MiB`;
}

function say(line: string): void {
  console.log(line);
}
