/** Work on an open image and one that it stands on, which is written to meanwhile. */
import { problemWith } from '../../errors.js';
import type { Image } from '../api/image.js';
import { type WholeDisk, checkWritable } from './whole-disk.js';

/**
 * Whether an image of a chain is the one that is to be written to.
 *
 * @param above the name of the image that stands on it
 * @param path its own
 */
export type IsWritten = (above: string, path: string) => Promise<boolean>;

/** The open image, and how the one below it is left and stood on again. */
export interface CommittedDisk extends WholeDisk {
  readonly edge:
    { readonly leave: () => Promise<void>; readonly comeBack: () => Promise<void> } | undefined;
  /** Opens the same image for reading, as its file has it, with one of those below for writing. */
  readonly openForReading?: (isWritten: IsWritten) => Promise<Image>;
  /** Whether other threads may have it open, and those below with it. */
  readonly isShared: boolean;
}

/**
 * What is done: it may write to the one of the chain that is open for writing, and then give up all that the image
 * itself holds.
 */
export type BaseWork = (chain: Image, empty: () => Promise<void>) => Promise<void>;

/** Runs work on the chain of an open image while no queue runs a request. */
export async function aboveBase(
  disk: CommittedDisk,
  isWritten: IsWritten,
  work: BaseWork,
): Promise<void> {
  const { filename, format, node, edge, openForReading, isShared } = disk;
  checkWritable(disk);
  if (isShared || openForReading === undefined) {
    const why = 'other threads may have the image open, and those that it stands on';
    throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why);
  }
  const empty = async (): Promise<void> => {
    await format.forget?.();
  };
  await node.runAlone(async () => {
    await format.settle?.();
    await edge?.leave();
    try {
      const chain = await openForReading(isWritten);
      try {
        await work(chain, empty);
      } finally {
        await chain.close();
      }
    } finally {
      await edge?.comeBack();
    }
  });
}
