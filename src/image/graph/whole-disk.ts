/** An open image as work on the whole of it sees it: whichever format it has, past the queues that people hold. */
import type { Node } from '../../engine/queues/node.js';
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
