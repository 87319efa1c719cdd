/** A file system that shares blocks between files, and takes hints. */
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { run, runOk } from './tools.js';

const bytes = 320 * 1024 * 1024;

/** A folder on a new XFS, until the test ends; undefined, the test skipped, where mounting is not allowed. */
export async function xfsFolder(t: TestContext): Promise<string | undefined> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-xfs-'));
  const image = path.join(folder, 'xfs.img');
  const place = path.join(folder, 'mounted');
  await mkdir(place);
  await writeFile(image, '');
  await truncate(image, bytes);
  await runOk('mkfs.xfs', ['-q', image]);
  const { code, stderr } = await run('mount', ['-o', 'loop', image, place]);
  t.after(async () => {
    // Lazily, so that what a failed test left open does not keep it.
    if (code === 0) await run('umount', ['-l', place]);
    await rm(folder, { recursive: true });
  });
  if (code === 0) return place;
  t.skip(`needs permission to mount: ${stderr.trim()}`);
  return undefined;
}
