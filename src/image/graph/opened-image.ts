/** An open image as people hold it: request checks, queues, and reports, over a format driver. */
import type { Readable, Writable } from 'node:stream';
import { Mutex } from 'async-mutex';
import { QueueCounters } from '../../engine/queues/counters.js';
import type { Node } from '../../engine/queues/node.js';
import { leave } from '../../engine/queues/members.js';
import { SharedWords } from '../../engine/words/shared-words.js';
import { Throttle, throttleWords } from '../../engine/throttle.js';
import { CowherdError, nameMemoryError, problemWith } from '../../errors.js';
import type {
  BackingReader,
  ChildFile,
  DataCopy,
  FillRule,
  FormatImage,
  ImageFiles,
} from '../../format/driver.js';
import type { EventHearer, StorageFile } from '../../storage/storage.js';
import type {
  Image,
  ImageBitmaps,
  ImageHandle,
  ImageQueue,
  ImageSnapshots,
  ImageVmState,
  ReadStreamOptions,
  WriteStreamOptions,
} from '../api/image.js';
import type {
  AmendOptions,
  OpenImageOptions,
  ResizeOptions,
  ThrottleOptions,
} from '../api/options.js';
import type {
  BitmapExtent,
  CheckOptions,
  CheckResult,
  Extent,
  ImageFormat,
  ImageInfo,
} from '../api/reports.js';
import type { ImageStats } from '../api/stats.js';
import type { BufferLike } from '../api/buffer.js';
import { type PathLike, pathOf } from '../api/path.js';
import { CheckedQueue } from '../pipeline/checked-queue.js';
import { type BaseWork, type IsWritten, aboveBase } from './above-base.js';
import { amendDisk } from './amend.js';
import { abortedOr, orAborted } from './aborted.js';
import { BitmapsOfImage, bitmapExtents } from './bitmaps.js';
import type { BackingEdge } from './backing-edge.js';
import { closeEach, eachStep, openAbove } from './cleanup-steps.js';
import { type LinkHandle, fileHandle, poisonAtThreadEnd } from './handle.js';
import { imageInfo } from '../report/info.js';
import { type ChainLink, areKnownZero, mapChain } from '../report/map.js';
import { checkRules, mapRules } from '../options/report-options.js';
import { checkQueueOptions, imageFormat } from '../options/open-options.js';
import { checkOptions } from '../options/option-check.js';
import { resizeDisk, resizeRules } from './resize.js';
import { type NestedImage, imageShown, mapShown, withUnitsOf } from './shown-image.js';
import type { SharedState } from './shared-state.js';
import { SnapshotsOfImage } from './snapshots.js';
import { VmStateOfImage } from './vm-state.js';
import { imageStats } from './stats.js';
import type { BareQueue, DiskRange, ChangeableDisk, WholeDisk } from './whole-disk.js';
import type { StreamSource } from '../streams/read-stream.js';

/** Where bytes of an image lie as its guest sees them. */
export interface PlainBytes {
  readonly file: StorageFile;
  /** Host offset in bytes. */
  readonly offset: number;
  /** Of the image they are read from. */
  readonly counters: QueueCounters;
}

/** What an open image is made of; it owns the files. */
export interface OpenedParts {
  readonly file: StorageFile;
  /** The files it is spread over, besides its own. */
  readonly children: readonly ChildFile[];
  readonly formatName: ImageFormat;
  readonly format: FormatImage;
  /** To the image below; undefined for a format whose images stand on none. */
  readonly edge: BackingEdge<OpenedImage> | undefined;
  /** Whether it is raw only because it looked like nothing else. */
  readonly probed?: boolean;
  readonly options: OpenImageOptions;
  /** As `CommittedDisk`; absent where another thread has opened it. */
  readonly openForReading?: (isWritten: IsWritten) => Promise<OpenedImage>;
  readonly shared: SharedState;
  /** Whether another thread has opened it. */
  readonly isAttached?: boolean;
  readonly node: Node;
  /** Of this thread's first queue. */
  readonly counters: QueueCounters;
}

/** An open image. Made by `openImage`. */
export class OpenedImage implements Image {
  readonly filename: string;
  readonly format: ImageFormat;
  readonly readOnly: boolean;
  /** Bytes of a cluster, or undefined for a format that has none. */
  readonly clusterSize: number | undefined;
  readonly #parts: OpenedParts;
  readonly #queues = new Set<CheckedQueue>();
  readonly #own: CheckedQueue;
  readonly #onClosed: (() => void)[] = [];
  readonly #throttles: Throttle[] = [];
  /** Whether other threads may have it open. */
  #shared: boolean;
  #isGivenOut = false;
  /** What changes the disk as a whole comes one after the other. */
  readonly #changing = new Mutex();
  readonly #onResized = new Set<() => void>();
  #closing: Promise<void> | undefined;

  constructor(parts: OpenedParts) {
    this.#parts = parts;
    this.#shared = parts.isAttached === true;
    this.filename = parts.file.filename;
    this.format = parts.formatName;
    this.readOnly = !parts.node.permissions.write;
    this.clusterSize = parts.format.clusterSize;
    const { throttle } = parts.options;
    if (throttle !== undefined) {
      this.#throttles.push(new Throttle(new SharedWords(parts.shared.throttle), throttle));
    }
    const files: ImageFiles = [parts.file, ...parts.children.map(({ file }) => file)];
    this.#own = this.#addQueue(files, parts.counters, undefined, () => Promise.resolve());
  }

  get backing(): OpenedImage | undefined {
    return this.#parts.edge?.image;
  }

  get size(): number {
    return this.#parts.node.size;
  }

  read(buffer: BufferLike, offset: number): Promise<void> {
    return this.#own.read(buffer, offset);
  }

  write(buffer: BufferLike, offset: number): Promise<void> {
    return this.#own.write(buffer, offset);
  }

  readv(buffers: readonly BufferLike[], offset: number): Promise<void> {
    return this.#own.readv(buffers, offset);
  }

  writev(buffers: readonly BufferLike[], offset: number): Promise<void> {
    return this.#own.writev(buffers, offset);
  }

  writeZeroes(
    offset: number,
    length: number,
    options: { readonly unmap?: boolean } = {},
  ): Promise<void> {
    return this.#own.writeZeroes(offset, length, options);
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#own.discard(offset, length);
  }

  writeCompressed(buffer: BufferLike, offset: number): Promise<void> {
    return this.#own.writeCompressed(buffer, offset);
  }

  reserve(offset: number, length: number): Promise<boolean> {
    return this.#own.reserve(offset, length);
  }

  flush(): Promise<void> {
    return this.#own.flush();
  }

  settle(): Promise<void> {
    return this.#own.settle();
  }

  createReadStream(options?: ReadStreamOptions): Readable {
    return this.#own.createReadStream(options);
  }

  createWriteStream(options?: WriteStreamOptions): Writable {
    return this.#own.createWriteStream(options);
  }

  /** @internal A way to fill this image from other files, if there is one. */
  dataCopy(rule: FillRule): DataCopy | undefined {
    return this.#own.dataCopy(rule);
  }

  /** @internal Ends the disk of an image that was made open-ended; it is only closed after that. */
  async endAt(size: number): Promise<void> {
    const { format, node } = this.#parts;
    await node.runAlone(async () => {
      await format.endAt?.(size);
      node.resize(size);
    });
  }

  async resize(size: number | string, options: ResizeOptions = {}): Promise<void> {
    this.#refuseClosed();
    checkOptions(options, resizeRules, this.filename);
    await this.#change(options.signal, () => resizeDisk(this.disk, size, options));
    this.#tellResized();
  }

  async amend(options: AmendOptions): Promise<void> {
    await this.#change(options.signal, () => amendDisk(this.disk, options));
    this.#tellResized();
  }

  /** @internal See `aboveBase`. */
  aboveBase(isWritten: IsWritten, signal: AbortSignal | undefined, work: BaseWork): Promise<void> {
    const disk = { ...this.disk, ...this.#parts, isShared: this.#shared };
    return this.#change(signal, () => aboveBase(disk, isWritten, work));
  }

  get snapshots(): ImageSnapshots {
    return new SnapshotsOfImage({ ...this.#changeable, onResized: this.#tellResized });
  }

  get vmState(): ImageVmState {
    return new VmStateOfImage(this.#changeable);
  }

  get bitmaps(): ImageBitmaps {
    return new BitmapsOfImage({
      ...this.#changeable,
      extents: (name, range) => this.bitmap(name, range),
    });
  }

  get #changeable(): ChangeableDisk {
    return { ...this.disk, change: (signal, section) => this.#change(signal, section) };
  }

  /** Runs a change of the disk as a whole after those that are under way. */
  async #change<Result>(
    signal: AbortSignal | undefined,
    section: () => Promise<Result>,
  ): Promise<Result> {
    this.#refuseClosed();
    try {
      return await this.#changing.runExclusive(section);
    } catch (error) {
      throw abortedOr(error, this.filename, signal);
    }
  }

  readonly #tellResized = (): void => {
    for (const told of this.#onResized) told();
  };

  /** @internal Has `action` run when the disk got another size by this object. @returns what undoes that */
  onResized(action: () => void): () => void {
    this.#onResized.add(action);
    return () => this.#onResized.delete(action);
  }

  /** @internal Whether the file of this image can share blocks of the other's, which share its layout. */
  canCloneFrom(source: OpenedImage): boolean {
    return this.isFlat && source.isFlat && this.#parts.file.canCloneFrom(source.#parts.file);
  }

  /** @internal Whether guest offsets are offsets in its file, and nothing else is there. */
  get isFlat(): boolean {
    return this.#parts.format.isFlat === true;
  }

  /** @internal As `FormatImage.identity`. */
  get identity(): string | undefined {
    return this.#parts.format.identity;
  }

  /** @internal Where an extent of `map` lies as it is, if it does; and who counts that it is read. */
  bytesOf({ zero, data, depth, offset, filename }: Extent): PlainBytes | undefined {
    if (zero || !data || offset === undefined || this.#shown !== undefined) return undefined;
    const { counters } = this.#parts;
    const { file, children, options } = this.#below(depth).#parts;
    const at = offset - startOf(options);
    const holder =
      filename === file.filename
        ? file
        : children.find((each) => each.file.filename === filename)?.file;
    if (holder === undefined) return undefined;
    return { ...(holder.place?.(at) ?? { file: holder, offset: at }), counters };
  }

  /** @internal How the disk is stored in this image and those below it, so many of the chain in all. */
  layers(count: number, signal?: AbortSignal): AsyncIterable<Extent> {
    return orAborted(this.filename, signal, this.#map(0, this.size, signal, count));
  }

  /** The image below filters whose disk this one is, as it is. */
  get #shown(): NestedImage | undefined {
    const { file, options } = this.#parts;
    return this.isFlat && options.window === undefined ? imageShown(file) : undefined;
  }

  /** @internal Who hears what is done above its file, if anybody does. */
  get events(): EventHearer | undefined {
    return this.#parts.file.events;
  }

  /** @internal What work on the whole image needs. */
  get disk(): WholeDisk {
    const { format, node } = this.#parts;
    return { filename: this.filename, format, node, openQueue: () => this.#bareQueue() };
  }

  /** An image of the chain; 0 is this one. */
  #below(depth: number): OpenedImage {
    return depth === 0 ? this : this.backing!.#below(depth - 1);
  }

  async info(): Promise<ImageInfo> {
    this.#refuseClosed();
    return await withUnitsOf(this.#shown, await imageInfo(this.#parts));
  }

  map(range: DiskRange = {}): AsyncIterable<Extent> {
    this.#refuseClosed();
    checkOptions(range, mapRules, this.filename);
    const offset = Math.min(range.offset ?? 0, this.size);
    const length = Math.min(range.length ?? Infinity, this.size - offset);
    return orAborted(this.filename, range.signal, this.#map(offset, length, range.signal));
  }

  bitmap(name: string, range: DiskRange = {}): AsyncIterable<BitmapExtent> {
    this.#refuseClosed();
    checkOptions(range, mapRules, this.filename);
    return orAborted(this.filename, range.signal, bitmapExtents(this.disk, name, range));
  }

  /** @param layers how many images of the chain are looked at */
  async *#map(
    offset: number,
    length: number,
    signal?: AbortSignal,
    layers = Infinity,
  ): AsyncGenerator<Extent> {
    const shown = layers === Infinity ? this.#shown : undefined;
    if (shown === undefined) yield* mapChain(await this.#link(layers), offset, length, signal);
    else yield* mapShown(shown, this.#parts.file, { offset, length, signal });
  }

  async replaceBacking(
    name: PathLike | undefined,
    options: { readonly format?: ImageFormat | undefined } = {},
  ): Promise<void> {
    this.#refuseClosed();
    checkOptions(options, { format: imageFormat }, this.filename);
    const { edge } = this.#parts;
    if (edge === undefined) {
      const why = `images of the ${this.format} format stand on no others`;
      throw problemWith('ERR_COWHERD_UNSUPPORTED', this.filename, why);
    }
    const path = name === undefined ? undefined : pathOf(name);
    await edge.replace({ name: path, format: options.format });
  }

  async check(options: CheckOptions = {}): Promise<CheckResult> {
    this.#refuseClosed();
    checkOptions(options, checkRules, this.filename);
    const { format, node } = this.#parts;
    if (format.check === undefined) {
      throw new CowherdError(
        'ERR_COWHERD_UNSUPPORTED',
        'This image format does not support checks',
        { filename: this.filename },
      );
    }
    if (options.repair !== undefined && !node.permissions.repair) {
      throw problemWith(
        'ERR_COWHERD_INVALID_ARGUMENT',
        this.filename,
        'to be repaired, an image has to be opened for writing and forCheck',
      );
    }
    try {
      return await format.check(options);
    } catch (error) {
      throw abortedOr(error, this.filename, options.signal);
    }
  }

  #refuseClosed(): void {
    if (this.#closing === undefined) return;
    const { filename } = this;
    throw new CowherdError('ERR_COWHERD_CLOSED', `'${filename}' is closed`, { filename });
  }

  /** What `attachImage` takes on other threads, as long as some thread has this image open. */
  handle(): ImageHandle {
    const handle = this.#linkHandle();
    if (!this.#isGivenOut) this.onClosed(poisonAtThreadEnd(handle));
    this.#isGivenOut = true;
    this.#shared = true;
    return handle as unknown as ImageHandle;
  }

  #linkHandle(): LinkHandle {
    const { file, children, format, edge, probed = false, options, shared } = this.#parts;
    this.#refuseClosed();
    return {
      shared,
      file: fileHandle(file),
      children: children.map((child) => ({ role: child.role, file: fileHandle(child.file) })),
      image: format.handle(),
      backing: edge?.image === undefined ? undefined : edge.image.#linkHandle(),
      replacement: edge?.replacement ?? 0,
      probed,
      // A function cannot be sent to other threads, and has been called as often as it will be.
      options: { ...options, onFinding: undefined, signal: undefined },
    };
  }

  /** Has `action` run when this thread has left the image. */
  onClosed(action: () => void): void {
    this.#onClosed.push(action);
  }

  /** Opens another queue, with its own way into the file and the backing chain. */
  // Not async, but for failures.
  // eslint-disable-next-line @typescript-eslint/require-await
  async openQueue(
    options: { readonly throttle?: ThrottleOptions | undefined } = {},
  ): Promise<ImageQueue> {
    this.#refuseClosed();
    checkQueueOptions(this.filename, options);
    return this.#withOwnFiles((files, counters) => {
      const queue = this.#addQueue(files, counters, options.throttle, async () => {
        try {
          await closeEach([...files].reverse());
        } finally {
          // Until then the image's own close waits for it, since the file may still be locked.
          this.#queues.delete(queue);
        }
      });
      return queue;
    });
  }

  /** Makes something that has a way of its own into the files, and counters; it closes the files. */
  #withOwnFiles<Made>(make: (files: ImageFiles, counters: QueueCounters) => Made): Made {
    const parts = this.#parts;
    const opened: StorageFile[] = [];
    let counters: QueueCounters | undefined;
    try {
      const file = parts.file.openQueue();
      opened.push(file);
      for (const child of parts.children) opened.push(child.file.openQueue());
      counters = QueueCounters.take(parts.shared.counters);
      return make([file, ...opened.slice(1)], counters);
    } catch (error) {
      counters?.release();
      void closeEach(opened).catch(() => undefined);
      throw nameMemoryError(error, this.filename);
    }
  }

  stats(): ImageStats {
    return imageStats(this.#parts.shared);
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #closeAll(): Promise<void> {
    const { file, children, edge } = this.#parts;
    try {
      await eachStep([
        () => this.#leave(),
        ...children.map((child) => () => child.file.close()),
        () => file.close(),
        () => edge?.close(),
      ]);
    } finally {
      for (const action of this.#onClosed) action();
    }
  }

  /** Ends this thread's queues, and the image's use if no other thread has it open. */
  async #leave(): Promise<void> {
    const { format, shared } = this.#parts;
    const ended = await Promise.allSettled([...this.#queues].map((queue) => queue.close()));
    // A thread that dies later must not take with it what this one has written.
    if (this.#shared) ended.push(...(await Promise.allSettled([format.settle?.()])));
    const last = leave(new SharedWords(shared.members));
    // What can still be made durable is, even if a queue could not give back what it had reserved.
    await eachStep([
      ...ended.map(
        (end) => () =>
          end.status === 'rejected' ? Promise.reject(end.reason as Error) : undefined,
      ),
      () => format.close(last),
    ]);
  }

  #addQueue(
    files: ImageFiles,
    counters: QueueCounters,
    throttle: ThrottleOptions | undefined,
    onClose: () => Promise<void>,
  ): CheckedQueue {
    const { format, edge, probed = false, options, node } = this.#parts;
    const { filename, clusterSize, readOnly } = this;
    const throttles = [...this.#throttles];
    if (throttle !== undefined) {
      throttles.push(new Throttle(new SharedWords(new Int32Array(throttleWords)), throttle));
    }
    const detectZeroes = options.detectZeroes ?? 'off';
    const isDiscardIgnored = options.discard === 'ignore';
    // Of tables that change, all are flushed before they are told of, and reading knows them by itself.
    const tells = readOnly || this.isFlat;
    const map: StreamSource['map'] = tells
      ? (offset, length) => this.map({ offset, length })
      : undefined;
    const rules = {
      filename,
      node,
      clusterSize,
      probed,
      detectZeroes,
      isDiscardIgnored,
      throttles,
      map,
    };
    const below = edge?.openQueue();
    const inner = openAbove(below, () => format.openQueue(files, below, counters));
    const queue = new CheckedQueue(rules, inner, counters, onClose);
    this.#queues.add(queue);
    return queue;
  }

  /** A way for one queue of the image above to read this one. */
  reader(): BackingReader {
    const { node } = this.#parts;
    const { queue, close } = this.#bareQueue();
    return {
      get size() {
        return node.size;
      },
      read: (buffer, offset) => queue.read(buffer, offset),
      isKnownZero: (offset, length) => areKnownZero(this.#map(offset, length)),
      close,
    };
  }

  /** A queue of the format, whose requests nobody looks at. */
  #bareQueue(): BareQueue {
    return this.#withOwnFiles((files, counters) => {
      const { format, edge } = this.#parts;
      const below = edge?.openQueue();
      const queue = openAbove(below, () => format.openQueue(files, below, counters));
      const close = async (): Promise<void> => {
        try {
          await closeEach([queue, ...[...files].reverse()]);
        } finally {
          counters.release();
        }
      };
      return { queue, close };
    });
  }

  /** The chain from here on, as it is now; so many images of it. */
  async #link(layers: number): Promise<ChainLink> {
    await this.#parts.edge?.follow();
    const below = layers > 1 ? this.backing : undefined;
    return {
      size: this.size,
      format: this.#parts.format,
      start: startOf(this.#parts.options),
      below: below === undefined ? undefined : await below.#link(layers - 1),
    };
  }
}

/** Where in its file an image begins, in bytes. */
function startOf({ window }: OpenImageOptions): number {
  return window?.offset ?? 0;
}
