/** The facts of an image that `info` reports, of whichever format. */

/** An internal snapshot. */
export interface SnapshotFacts {
  readonly id: string;
  readonly name: string;
  readonly vmStateSize: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  readonly vmClockSeconds: number;
  readonly vmClockNanoseconds: number;
  /** Guest instructions executed, where the snapshot records it. */
  readonly icount?: number | undefined;
}

/** A persistent bitmap. */
export interface BitmapFacts {
  readonly name: string;
  /** Bytes that one bit covers. */
  readonly granularity: number;
}

/** A persistent bitmap, and what becomes of it. */
export interface BitmapState extends BitmapFacts {
  /** Whether what changes is recorded in it while the image is written to. */
  readonly isEnabled: boolean;
  /** Whether it was in use when the image was closed, so that it does not say what has changed. */
  readonly isInconsistent: boolean;
}

/** What a format says of an image, besides its size and what lies below it. */
export interface FormatFacts {
  /** Bytes. */
  readonly clusterSize?: number | undefined;
  /** Bytes of the parts in which clusters are allocated, where these are smaller. */
  readonly subclusterSize?: number | undefined;
  /** Guest offset behind the disk from which on the state of a machine is kept, where one can be. */
  readonly vmStateOffset?: number | undefined;
  readonly encrypted?: boolean | undefined;
  /** Whether it was not closed cleanly; undefined for formats of which QEMU does not tell it. */
  readonly dirty?: boolean | undefined;
  readonly snapshots: readonly SnapshotFacts[];
  /** Persistent bitmaps; left out for images that can have none. */
  readonly bitmaps?: readonly BitmapFacts[] | undefined;
  /** Why something is not told that the image has, such as where the record of it is damaged. */
  readonly warnings?: readonly string[] | undefined;
  /** What only this format has to tell: members in QEMU's order, left out where they are undefined. */
  readonly specific?: { readonly type: string } | undefined;
}
