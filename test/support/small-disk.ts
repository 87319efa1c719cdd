/** A file system that is full soon. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { findTool, run } from './tools.js';

/**
 * Mounts a file system in memory that has room for so many bytes, until the test ends. Where that
 * is not allowed, the test is marked skipped and the caller returns.
 */
export async function smallDisk(t: TestContext, size: number): Promise<string | undefined> {
  if (process.platform !== 'linux' || findTool('mount') === undefined) {
    t.skip('needs mount(8)');
    return undefined;
  }
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-disk-'));
  const { code, stderr } = await run('mount', [
    '-t',
    'tmpfs',
    '-o',
    `size=${size}`,
    'none',
    folder,
  ]);
  if (code !== 0) {
    await rm(folder, { recursive: true });
    t.skip(`needs permission to mount: ${stderr.trim()}`);
    return undefined;
  }
  t.after(async () => {
    // Lazily, so that what a failed test left open does not keep it.
    await run('umount', ['-l', folder]);
    await rm(folder, { recursive: true });
  });
  return folder;
}

/** Takes room on a small disk. */
export async function fill(folder: string, size: number): Promise<string> {
  const file = path.join(folder, 'filler');
  await writeFile(file, Buffer.alloc(size, 1));
  return file;
}
