/** Writing to images in which all bytes of the disk have their place from the start. */
import type { BlockRun, GrowingMapping, Mapping } from './mapping.js';

/** The mapping of such an image, by that for reading it. */
export class PlacedMapping implements GrowingMapping {
  readonly blockSize = 512;
  readonly find: Mapping['find'];
  readonly renewIdentity: GrowingMapping['renewIdentity'];

  /** @param renewIdentity as that of `GrowingMapping`, where the format has it */
  constructor(mapping: Mapping, renewIdentity?: () => Promise<void>) {
    this.find = (offset, length) => mapping.find(offset, length);
    this.renewIdentity = renewIdentity;
  }

  allocate(block: number): Promise<BlockRun> {
    return Promise.reject(new Error(`block ${block} has its place`));
  }

  link(): Promise<void> {
    return Promise.resolve();
  }

  takeChanges(): undefined {
    return undefined;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
