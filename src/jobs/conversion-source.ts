/** What a conversion reads from: images, one after the other as one disk, or a disk that comes only once. */
import { type Hash, createHash } from 'node:crypto';
import { cannotOpen, CowherdError } from '../errors.js';
import type { Image, RequestTarget } from '../image/api/image.js';
import type { Progress } from '../image/api/long-operation.js';
import type { OpenImageOptions } from '../image/api/options.js';
import type { ImageStats } from '../image/api/stats.js';
import { closeEach } from '../image/graph/cleanup-steps.js';
import { isImage } from '../image/graph/is-image.js';
import { openImage } from '../image/graph/open.js';
import { type PathLike, pathOf } from '../image/api/path.js';
import {
  type ByteStream,
  type StreamedDisk,
  openSpooled,
  packedStream,
  sourceStream,
  streamedDisk,
} from '../image/graph/source-stream.js';
import { type ChecksumResult, digestContent, digestFile } from './checksum.js';
import { type Source, type SourcePart, concatenate } from './concatenation.js';
import { DiskDigest } from './disk-digest.js';
import { openQueues } from './queues.js';
import { StreamSource } from './stream-source.js';

/** The name of an image, an image that is open, and stays so, or the bytes of one as they come. */
export type ConversionSource = PathLike | Image | AsyncIterable<Uint8Array>;

/** How sources are opened. */
export interface SourceOpening {
  /** Of each source by its number. */
  readonly optionsOf: (index: number) => OpenImageOptions;
  readonly queues: number | undefined;
  /** What failures call sources that have no name. */
  readonly streamName: string;
  /** The digest that `checksums` is going to ask for. */
  readonly algorithm: string | undefined;
}

/** See the file's comment. */
export interface OpenedSource {
  /** Images that are open; none of a disk that comes once. */
  readonly parts: readonly SourcePart[];
  /** Bytes; undefined for a disk of which it shows only at the end. */
  readonly size: number | undefined;
  /** Bytes, once everything has been read. */
  readonly wholeSize: number;
  /** Names of the sources. */
  readonly filenames: readonly string[];
  /** What is copied. @param mostBytes of a disk whose size is not known: what the target has room for */
  source(mostBytes: number): Source;
  /** Of a disk that comes once: how far that is, as what it comes from tells it. */
  readonly progress: (() => Progress) | undefined;
  /** The same in order, in place of `source`: bytes, or the length of a run of zeroes. */
  readonly content: (() => AsyncIterable<Uint8Array | number>) | undefined;
  /**
   * Digests of each source. Of a disk that comes once they are there when all of it was read, of images
   * before that.
   */
  checksums(signal: AbortSignal | undefined): Promise<readonly ChecksumResult[]>;
  /** The same as images, of which everything is known. Nothing of it may have been read. */
  spooled(): Promise<OpenedSource>;
  stats(): readonly ImageStats[];
  close(): Promise<void>;
}

/** Opens what a conversion reads from. @throws CowherdError naming what cannot be opened */
export async function openConversionSource(
  sources: readonly ConversionSource[],
  opening: SourceOpening,
): Promise<OpenedSource> {
  const [only] = sources;
  if (sources.length === 1 && opening.optionsOf(0).snapshot === undefined) {
    const once = await comingOnce(only, 0, opening);
    if (once !== undefined) return await openOnce(once, opening);
  }
  const parts: CheckedPart[] = [];
  try {
    for (const [index, source] of sources.entries()) {
      parts.push(await openOne(source, index, opening));
    }
  } catch (error) {
    await leave(parts).catch(() => undefined);
    throw error;
  }
  return new OpenedParts(parts, opening);
}

/** Opens an image; a failure to open one below it names it too. */
export async function openNamed(path: string, options: OpenImageOptions): Promise<Image> {
  try {
    return await openImage(path, options);
  } catch (error) {
    if (!(error instanceof CowherdError) || error.role !== 'backing') throw error;
    throw aboveFailure(path, error.message, error);
  }
}

/** The failure to open an image whose backing file cannot be opened. @param why that, with the file's name */
function aboveFailure(path: string, why: string, cause: CowherdError): CowherdError {
  return cannotOpen(cause.code, path, why, { role: 'backing', cause });
}

/** The same of an image that was not opened yet, by the failure to open its backing file. */
export function backingFailure(path: string, cause: CowherdError): CowherdError {
  return aboveFailure(path, `Could not open backing file: ${cause.message}`, cause);
}

/** What comes only once, and the digest of its file's bytes if that is wanted. */
interface Once {
  readonly stream: ByteStream;
  readonly fileHash: Hash | undefined;
}

/** An image of a source. */
interface CheckedPart extends SourcePart {
  readonly queues: readonly (RequestTarget & { close(): Promise<void> })[];
  /** The digest of its file, which cannot be read again. */
  readonly fileHash?: Hash | undefined;
  /** How it was opened. */
  readonly options: OpenImageOptions;
  /** Whether it is the caller's, and stays open. */
  readonly isBorrowed?: boolean;
}

/** What comes only once, of a source; undefined for one that can be read at any offset. */
async function comingOnce(
  source: ConversionSource,
  index: number,
  { optionsOf, streamName, algorithm }: SourceOpening,
): Promise<Once | undefined> {
  const options = optionsOf(index);
  const fileHash = algorithm === undefined ? undefined : createHash(algorithm);
  const onBytes = fileHash && ((bytes: Uint8Array): void => void fileHash.update(bytes));
  if (isImage(source)) return undefined;
  if (isStream(source)) {
    return { stream: await sourceStream(source, streamName, options.signal, onBytes), fileHash };
  }
  if (options.window !== undefined) return undefined;
  const stream = await packedStream(pathOf(source), options, onBytes);
  return stream && { stream, fileHash };
}

function isStream(source: ConversionSource): source is AsyncIterable<Uint8Array> {
  return typeof source === 'object' && Symbol.asyncIterator in source;
}

async function openOnce(once: Once, opening: SourceOpening): Promise<OpenedSource> {
  const { stream } = once;
  try {
    const disk = await streamedDisk(stream, opening.optionsOf(0).format);
    if (disk !== undefined) return new OpenedStream(once, disk, opening);
  } catch (error) {
    await stream.close().catch(() => undefined);
    throw error;
  }
  return new OpenedParts([await openPart(once, 0, opening)], opening);
}

async function openOne(
  source: ConversionSource,
  index: number,
  opening: SourceOpening,
): Promise<CheckedPart> {
  if (isStream(source)) return openPart(await comingOnce(source, index, opening), index, opening);
  const options = opening.optionsOf(index);
  if (isImage(source)) return withQueues(source, { options, isBorrowed: true }, opening);
  return withQueues(await openNamed(pathOf(source), options), { options }, opening);
}

/** Reads what comes once to its end, as an image. */
async function openPart(
  once: Once | undefined,
  index: number,
  opening: SourceOpening,
): Promise<CheckedPart> {
  const options = opening.optionsOf(index);
  const image = await openSpooled(once!.stream, options);
  return withQueues(image, { options, fileHash: once!.fileHash }, opening);
}

async function withQueues(
  image: Image,
  how: Omit<CheckedPart, keyof SourcePart>,
  { queues }: SourceOpening,
): Promise<CheckedPart> {
  try {
    return { ...how, image, queues: await openQueues(image, queues) };
  } catch (error) {
    if (how.isBorrowed !== true) await image.close().catch(() => undefined);
    throw error;
  }
}

/** Ends the use of images: those of the caller stay open. */
function leave(parts: readonly CheckedPart[]): Promise<void> {
  return closeEach(
    parts.flatMap(({ image, queues, isBorrowed = false }) =>
      isBorrowed ? queues.slice(1) : [image],
    ),
  );
}

/** Images, one after the other. */
class OpenedParts implements OpenedSource {
  readonly parts: readonly CheckedPart[];
  readonly size: number;
  readonly progress = undefined;
  readonly content = undefined;
  readonly #algorithm: string | undefined;

  constructor(parts: readonly CheckedPart[], { algorithm }: SourceOpening) {
    this.parts = parts;
    this.#algorithm = algorithm;
    this.size = parts.reduce((sum, { image }) => sum + image.size, 0);
  }

  get wholeSize(): number {
    return this.size;
  }

  get filenames(): readonly string[] {
    return this.parts.map(({ image }) => image.filename);
  }

  source(): Source {
    return concatenate(this.parts);
  }

  async checksums(signal: AbortSignal | undefined): Promise<readonly ChecksumResult[]> {
    const algorithm = this.#algorithm!;
    const results: ChecksumResult[] = [];
    for (const { image, options, fileHash } of this.parts) {
      const file =
        fileHash?.digest('hex') ?? (await digestFile(image.filename, algorithm, options, signal));
      results.push({ file, content: await digestContent(image, algorithm, { signal }) });
    }
    return results;
  }

  spooled(): Promise<OpenedSource> {
    return Promise.resolve(this);
  }

  stats(): readonly ImageStats[] {
    return this.parts.map(({ image }) => image.stats());
  }

  close(): Promise<void> {
    return leave(this.parts);
  }
}

/** Bytes that are forgotten at once. */
const skippedBytes = 1024 * 1024;

/** A disk that comes once. */
class OpenedStream implements OpenedSource {
  readonly parts: readonly SourcePart[] = [];
  readonly #once: Once;
  readonly #disk: StreamedDisk;
  readonly #opening: SourceOpening;
  readonly #digest: DiskDigest | undefined;
  #source: StreamSource | undefined;
  #isHandedOver = false;

  constructor(once: Once, disk: StreamedDisk, opening: SourceOpening) {
    this.#once = once;
    this.#disk = disk;
    this.#opening = opening;
    const { algorithm } = opening;
    this.#digest = algorithm === undefined ? undefined : new DiskDigest(algorithm);
  }

  get size(): number | undefined {
    return this.#disk.size;
  }

  get wholeSize(): number {
    return this.#source?.wholeSize ?? 0;
  }

  get filenames(): readonly string[] {
    return [this.#once.stream.filename];
  }

  source(mostBytes: number): StreamSource {
    this.#source = new StreamSource(this.#once.stream, this.#disk, mostBytes, this.#digest);
    return this.#source;
  }

  get content(): () => AsyncIterable<Uint8Array | number> {
    const source = this.source(Infinity);
    return () => source.content();
  }

  get progress(): () => Progress {
    return () => this.#once.stream.progress ?? { doneBytes: 0, totalBytes: Infinity };
  }

  async checksums(): Promise<readonly ChecksumResult[]> {
    // What the file has beyond its disk is part of it.
    while ((await this.#once.stream.skip(skippedBytes)) > 0);
    return [{ file: this.#once.fileHash!.digest('hex'), content: this.#digest!.end() }];
  }

  async spooled(): Promise<OpenedSource> {
    this.#isHandedOver = true;
    return new OpenedParts([await openPart(this.#once, 0, this.#opening)], this.#opening);
  }

  stats(): readonly ImageStats[] {
    return [];
  }

  async close(): Promise<void> {
    if (!this.#isHandedOver) await this.#once.stream.close();
  }
}
