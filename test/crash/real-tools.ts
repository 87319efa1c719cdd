/** The real qemu-img, on images that lie in memory. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { run, runOk } from '../support/tools.js';

/** Name of an image's external data file. */
export const dataName = 'disk.data';
/** Name of the snapshot that `withRealSnapshot` takes. */
export const snapshotName = 'one';
const imageName = 'disk.qcow2';
const backingName = 'base.raw';

/** The files of an image, as bytes. */
export interface ImageBytes {
  readonly image: Uint8Array;
  readonly data: Uint8Array | undefined;
  readonly backing: Uint8Array | undefined;
}

/** An image with a snapshot of its present content. */
export async function withRealSnapshot(
  image: Uint8Array,
  backing: Uint8Array | undefined,
): Promise<Uint8Array> {
  return inFolder({ image, data: undefined, backing }, async (folder) => {
    await runOk('qemu-img', ['snapshot', '-c', snapshotName, imageName], { cwd: folder });
    return readFile(path.join(folder, imageName));
  });
}

/**
 * Lets qemu-img check an image.
 *
 * @param dirty whether its counts may be too low, so that it has to be repaired first
 * @returns what it objects to, leaks aside, and the image as it then is
 */
export async function realCheck(
  bytes: ImageBytes,
  dirty: boolean,
): Promise<{ readonly objection: string | undefined; readonly repaired: Uint8Array }> {
  return inFolder(bytes, async (folder) => {
    if (dirty) {
      await run('qemu-img', ['check', '-f', 'qcow2', '-r', 'all', imageName], { cwd: folder });
    }
    const check = await run('qemu-img', ['check', '-f', 'qcow2', imageName], { cwd: folder });
    const fine = check.code === 0 || (check.code === 3 && !dirty);
    return {
      objection: fine ? undefined : `qemu-img check: ${check.stdout}${check.stderr}`,
      repaired: await readFile(path.join(folder, imageName)),
    };
  });
}

async function inFolder<Result>(
  { image, data, backing }: ImageBytes,
  work: (folder: string) => Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-crash-'));
  try {
    await writeFile(path.join(folder, imageName), image);
    if (data !== undefined) await writeFile(path.join(folder, dataName), data);
    if (backing !== undefined) await writeFile(path.join(folder, backingName), backing);
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}
