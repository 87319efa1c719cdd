/** Images that are read once, from the first byte of their file to the last. */

/** Bytes of a disk. */
export interface StreamedPiece {
  /** Guest offset in bytes. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** The disk of an image that is read once. */
export interface StreamedDisk {
  /** Virtual size in bytes; undefined for one that shows only when the stream ends. */
  readonly size: number | undefined;
  /**
   * Its bytes, ascending, one after the other; what lies between pieces is zeroes.
   *
   * @throws CowherdError naming the stream and what is wrong with it
   */
  readonly pieces: AsyncIterable<StreamedPiece>;
}
