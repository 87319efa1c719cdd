/** What rows that count requests have in common: full and empty images, and runs of `cowherd bench`. */
import { rm } from 'node:fs/promises';
import { type ImageFormat, createImage, openImage } from '../src/index.js';
import type { Runner } from './duel.js';
import { benchCowherd, settle } from './programs.js';

const gib = 1024 ** 3;

/** Makes a file ready for a run. */
export type Prepare = () => Promise<void>;

/** For runs that need nothing to be made ready. */
export const nothing: Prepare = () => Promise.resolve();

/**
 * Makes a disk all of data.
 *
 * @param writeBytes of each write: how large they were decides how quickly the disk is overwritten
 */
export async function makeFull(
  file: string,
  format: ImageFormat,
  size: number,
  writeBytes: number,
): Promise<void> {
  await createImage(file, { format, size });
  await using image = await openImage(file, { format });
  const data = new Uint8Array(writeBytes);
  for (let offset = 0; offset < size; offset += data.length) {
    data.fill(((offset / data.length) % 255) + 1);
    await image.write(data, offset);
  }
}

/** Has each run begin with a new image of 64 GiB. */
export function withEmptyImage(image: string): Prepare {
  return async () => {
    await rm(image, { force: true });
    await settle();
    await createImage(image, { format: 'qcow2', size: 64 * gib });
  };
}

/** Runs of `cowherd bench`. */
export function benchRunner(label: string, before: Prepare, words: readonly string[]): Runner {
  return {
    label,
    run: async () => {
      await before();
      return benchCowherd(...words);
    },
  };
}
