/** An open image as work on the whole of it sees it: whichever format it has, past the queues that people hold. */
import type { Node } from '../../engine/queues/node.js';
import { problemWith } from '../../errors.js';
import type { FormatImage, FormatQueue } from '../../format/driver.js';

/** A queue of a format, and what ends it with its files. */
export interface BareQueue {
  readonly queue: FormatQueue;
  readonly close: () => Promise<void>;
}

/** What is worked on. */
export interface WholeDisk {
  readonly filename: string;
  readonly format: FormatImage;
  readonly node: Node;
  readonly openQueue: () => BareQueue;
}

/** One whose changes as a whole come one after the other. */
export interface ChangeableDisk extends WholeDisk {
  /** Runs a change after those that are under way; ends it as its signal says. */
  readonly change: <Result>(
    signal: AbortSignal | undefined,
    section: () => Promise<Result>,
  ) => Promise<Result>;
}

/** @throws ERR_COWHERD_READ_ONLY for a disk that may only be read */
export function checkWritable({ filename, node }: WholeDisk): void {
  if (node.permissions.write) return;
  throw problemWith('ERR_COWHERD_READ_ONLY', filename, 'Image is read-only');
}

/** A part of a disk that is looked at; all of it if nothing is said. Bytes. */
export interface DiskRange {
  readonly offset?: number;
  readonly length?: number;
  readonly signal?: AbortSignal;
}
