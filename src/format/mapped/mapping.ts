/**
 * Formats that are a header and a mapping: what such a format gives, from which everything else that an
 * open image does follows.
 */
import type { StorageFile } from '../../storage/storage.js';
import type { CheckOptions, CheckReport } from '../check.js';
import type { Preallocation } from '../create-options.js';
import type {
  FormatDriver,
  BackingReference,
  ChildFile,
  FormatOpening,
  ImageCreation,
  ImageFiles,
} from '../driver.js';
import type { FormatFacts } from '../facts.js';

/** A part of an image that is stored compressed as a whole. */
export interface CompressedChunk {
  /** Tells it from every other chunk of the image; the same whenever it is found again. */
  readonly key: number;
  /** Bytes that it inflates to: at most `maxChunkBytes` of `limits.ts`. */
  readonly size: number;
  /**
   * Reads and inflates it.
   *
   * @param into `size` bytes, all of which are filled
   * @throws CowherdError ERR_COWHERD_CORRUPT for data that do not inflate to that
   */
  inflate(files: readonly StorageFile[], into: Uint8Array): Promise<void>;
}

/** Where a stretch of the virtual disk is found; `length` is in bytes, at least 1. */
export type Place =
  | {
      readonly kind: 'data';
      readonly length: number;
      /** Which of the image's files: 0 is its own, then those it is spread over. */
      readonly file: number;
      /** Host offset in bytes. */
      readonly offset: number;
      /** Whether holes that the file has there are told as zeroes: no table says what is stored. */
      readonly hasHoles?: boolean;
    }
  /** The image itself says that it is zeroes. */
  | { readonly kind: 'zero'; readonly length: number }
  /** What is below the image shows. */
  | { readonly kind: 'unallocated'; readonly length: number }
  | {
      readonly kind: 'compressed';
      readonly length: number;
      readonly chunk: CompressedChunk;
      /** Where in the inflated chunk the stretch begins, in bytes. */
      readonly within: number;
    };

/** Where the bytes of one open image lie. */
export interface Mapping {
  /**
   * Where the bytes from a guest offset on are found: as much of the stretch as one place holds, joined
   * where neighbouring parts follow one another in a file, and no more than `length`. Costs a bounded
   * amount of work a call: a mapping may end a stretch early. Answers at once where it can, since every
   * request asks.
   *
   * @param offset bytes, below the size of the disk
   * @param length bytes, at least 1, ending within the disk
   * @throws CowherdError ERR_COWHERD_CORRUPT or ERR_COWHERD_IO naming the file and the offset
   */
  find(offset: number, length: number): Place | Promise<Place>;
}

/** Blocks that have a place one after the other in a file of the image. */
export interface BlockRun {
  /** Which of its files, as of `Place`; its own if absent. */
  readonly file?: number;
  /** Host offset in bytes of the first one's data. */
  readonly hostOffset: number;
  /** Blocks, at least 1. */
  readonly count: number;
  /** Whether other data may have lain there: around what is written come zeroes then. */
  readonly isReused?: boolean;
}

/** Changes of tables on their way to the file. */
export interface TableChanges {
  /** Writes them: by then all data of the blocks that were linked are durable. */
  write(): Promise<void>;
  /** Ends their way; what is not durable for sure will be among the next changes again. */
  end(isDurable: boolean): void;
}

/**
 * The mapping of an image that is written to, by one thread. What it takes note of reaches the file when
 * it is flushed; `find` knows of it at once.
 */
export interface GrowingMapping extends Mapping {
  /** Bytes of guest data that get a place together, a multiple of 512. */
  readonly blockSize: number;
  /** Whether blocks can only be written by `writeCompressed`. */
  readonly needsCompressedWrites?: boolean;
  /**
   * Says in the file, durably, that the disk is no longer what it was; called before the first write since
   * the image was opened. Absent where the format has nothing that says so.
   */
  readonly renewIdentity?: (() => Promise<void>) | undefined;
  /**
   * Takes places for blocks that have none, and makes the file as long as that needs. Called for one
   * write after the other; the blocks are found there only after `link`.
   *
   * @param count blocks wanted from the first on; fewer may be given
   */
  allocate(block: number, count: number): Promise<BlockRun>;
  /** Takes back places whose data could not be written; absent where the format bears that they are lost. */
  release?(run: BlockRun): void;
  /** Takes note of where blocks lie, whose data have been written. */
  link(block: number, run: BlockRun): Promise<void>;
  /** Makes blocks that have no place read as zeroes, whatever is below; absent if the format cannot say that. */
  linkZeroes?(block: number, count: number): Promise<void>;
  /**
   * Stores a block that has no place compressed, where the format does that.
   *
   * @param data one block, or as much of it as the disk has
   */
  writeCompressed?(block: number, data: Uint8Array): Promise<void>;
  /** What was taken note of so far; undefined if it is all in the file. Once at a time. */
  takeChanges(): TableChanges | undefined;
  /** Writes what has to be durable before any of the changes that were taken. */
  announce?(): Promise<void>;
  /** Absent where the header says what it said at first. */
  readonly header?: ChangingHeader;
  /** Leaves the image as one that was closed cleanly, after the last flush. */
  close(): Promise<void>;
}

/**
 * A header that can come to say something else, while no queue runs a request and all that was linked is durable.
 * Whatever is cut off leaves what it said or what it is to say.
 */
export interface ChangingHeader {
  /**
   * Looks whether the disk can have that size.
   *
   * @param old bytes that it has now
   * @throws CowherdError saying why not
   */
  checkSize(size: number, old: number, preallocation: Preallocation): void;
  /** Says how large the disk is, durably. */
  writeSize(size: number): Promise<void>;
  /** Looks whether it can name that as the image below, or none. @throws CowherdError saying why not */
  checkBacking(backing: BackingReference | undefined): Promise<void>;
  /** Names it, durably. */
  writeBacking(backing: BackingReference | undefined): Promise<void>;
}

/** What was read of an image when it was opened; can be cloned by structuredClone. */
export interface MappedLayout {
  /** Virtual size in bytes. */
  readonly size: number;
  /** Bytes of a cluster, as `info` reports it; undefined for images that have none. */
  readonly clusterSize: number | undefined;
  /** What the image names as the one below it. */
  readonly backing?: BackingReference | undefined;
  /** As `FormatImage.identity`. */
  readonly identity?: string | undefined;
}

/** An image that was just opened. */
export interface OpenedLayout<Layout> {
  readonly layout: Layout;
  /** The files it is spread over, in the order of `Place.file`, from 1. */
  readonly children: readonly ChildFile[];
}

/** A format that is read by a mapping. */
export interface MappedFormat<Layout extends MappedLayout> {
  /** As QEMU names it. */
  readonly name: string;
  /** Whether its images can stand on another one. */
  readonly hasBacking?: boolean;
  /**
   * Reads and checks what describes the image. Every size is bounded against the file, or by `limits.ts`,
   * before memory is taken.
   *
   * @throws CowherdError ERR_COWHERD_INVALID_IMAGE or ERR_COWHERD_UNSUPPORTED, `Could not open 'FILE': WHY`
   */
  readLayout(opening: FormatOpening): Promise<OpenedLayout<Layout>>;
  /** The mapping of an image on this thread. Tables are read through `files`, which stay open. */
  mapping(layout: Layout, files: ImageFiles): Mapping;
  /**
   * The mapping of an image that is written to; absent where images of the format can only be read. Its
   * layout was read from a file that is open for writing: `readLayout` refuses what cannot be written.
   */
  growing?(layout: Layout, files: ImageFiles): GrowingMapping | Promise<GrowingMapping>;
  /** How images are made; absent where they are only read. */
  readonly creation?: ImageCreation;
  /** As a driver's. */
  readonly stream?: FormatDriver['stream'];
  /**
   * Checks the image as it stands in its files, which nobody changes meanwhile, and repairs it; absent where
   * there is nothing to check.
   *
   * @param files open for writing if something is to be repaired
   * @throws ERR_COWHERD_UNSUPPORTED for a repair that the format does not have
   */
  check?(layout: Layout, files: ImageFiles, options: CheckOptions): Promise<CheckReport>;
  /** What `info` reports beside size, cluster size and backing file. */
  facts?(layout: Layout, files: ImageFiles): Partial<FormatFacts> | Promise<Partial<FormatFacts>>;
}
