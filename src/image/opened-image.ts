/** An open image as people hold it: request checks, queues, and reports, over a format driver. */
import { leave } from '../engine/members.js';
import { SharedWords } from '../engine/shared-words.js';
import { CowherdError } from '../errors.js';
import type { BackingReader, FormatQueue } from '../format/driver.js';
import { checkQcow2 } from '../format/qcow2/check.js';
import { Qcow2Image } from '../format/qcow2/image.js';
import type { RawImage } from '../format/raw/image.js';
import { isZero } from '../native/zero-scan.js';
import type { StorageFile } from '../storage/storage.js';
import type {
  CheckResult,
  Extent,
  Image,
  ImageFormat,
  ImageInfo,
  ImageQueue,
  LongOperationOptions,
  OpenImageOptions,
} from './api.js';
import { type ImageHandle, fileHandle, poisonAtThreadEnd } from './handle.js';
import { imageInfo } from './info.js';
import { type ChainLink, mapChain } from './map.js';

/** What an open image is made of; it owns the files. */
export interface OpenedParts {
  readonly file: StorageFile;
  readonly dataFile: StorageFile | undefined;
  readonly format: Qcow2Image | RawImage;
  readonly backing: OpenedImage | undefined;
  readonly options: OpenImageOptions;
  /** The words of `members`, of which this thread is one. */
  readonly members: Int32Array;
}

/** The requests of one queue, checked against the image before the format sees them. */
class CheckedQueue implements ImageQueue {
  readonly #image: OpenedImage;
  readonly #queue: FormatQueue;
  readonly #detectZeroes: 'off' | 'on' | 'unmap';
  readonly #onClose: () => Promise<void>;
  #closing: Promise<void> | undefined;

  constructor(
    image: OpenedImage,
    queue: FormatQueue,
    detectZeroes: 'off' | 'on' | 'unmap',
    onClose: () => Promise<void>,
  ) {
    this.#image = image;
    this.#queue = queue;
    this.#detectZeroes = detectZeroes;
    this.#onClose = onClose;
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    const refusal = this.#refusal(offset, buffer.length, false);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (buffer.length === 0) return Promise.resolve();
    return this.#queue.read(buffer, offset);
  }

  write(buffer: Uint8Array, offset: number): Promise<void> {
    const refusal = this.#refusal(offset, buffer.length, true);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (buffer.length === 0) return Promise.resolve();
    if (this.#detectZeroes !== 'off' && isZero(buffer)) {
      return this.#queue.writeZeroes(offset, buffer.length, this.#detectZeroes === 'unmap');
    }
    return this.#queue.write(buffer, offset);
  }

  writeZeroes(
    offset: number,
    length: number,
    options: { readonly unmap?: boolean } = {},
  ): Promise<void> {
    const refusal = this.#refusal(offset, length, true);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (length === 0) return Promise.resolve();
    return this.#queue.writeZeroes(offset, length, options.unmap ?? false);
  }

  discard(offset: number, length: number): Promise<void> {
    const refusal = this.#refusal(offset, length, true);
    if (refusal !== undefined) return Promise.reject(refusal);
    if (length === 0) return Promise.resolve();
    return this.#queue.discard(offset, length);
  }

  writeCompressed(buffer: Uint8Array, offset: number): Promise<void> {
    const refusal =
      this.#refusal(offset, buffer.length, true) ?? this.#clusterRefusal(offset, buffer.length);
    if (refusal !== undefined) return Promise.reject(refusal);
    return this.#queue.writeCompressed(buffer, offset);
  }

  flush(): Promise<void> {
    if (this.#image.readOnly) return Promise.resolve();
    return this.#queue.flush();
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#queue.close();
      await this.#onClose();
    })();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #refusal(offset: number, length: number, writes: boolean): CowherdError | undefined {
    const { filename, size, readOnly } = this.#image;
    if (this.#closing !== undefined) {
      return new CowherdError('ERR_COWHERD_CLOSED', `'${filename}' is closed`, { filename });
    }
    if (
      !Number.isInteger(offset) ||
      !Number.isInteger(length) ||
      offset < 0 ||
      length < 0 ||
      offset + length > size
    ) {
      return new CowherdError(
        'ERR_COWHERD_OUT_OF_RANGE',
        `'${filename}': ${length} bytes at guest offset ${offset} do not lie within the disk of ${size} bytes`,
        { filename, offset },
      );
    }
    if (writes && readOnly) {
      return new CowherdError('ERR_COWHERD_READ_ONLY', `'${filename}' is open read-only`, {
        filename,
        offset,
      });
    }
    return undefined;
  }

  #clusterRefusal(offset: number, length: number): CowherdError | undefined {
    const { filename, size, clusterSize } = this.#image;
    if (clusterSize === undefined) return undefined;
    const whole = Math.min(clusterSize, size - offset);
    if (offset % clusterSize === 0 && length === whole) return undefined;
    return new CowherdError(
      'ERR_COWHERD_INVALID_ARGUMENT',
      `'${filename}': compressed writes take one cluster of ${clusterSize} bytes at its guest offset`,
      { filename, offset },
    );
  }
}

/** An open image. Made by `openImage`. */
export class OpenedImage implements Image {
  readonly filename: string;
  readonly format: ImageFormat;
  readonly readOnly: boolean;
  readonly size: number;
  /** Bytes of a cluster, or undefined for a format that has none. */
  readonly clusterSize: number | undefined;
  readonly backing: OpenedImage | undefined;
  readonly #parts: OpenedParts;
  readonly #queues = new Set<CheckedQueue>();
  readonly #own: CheckedQueue;
  readonly #onClosed: (() => void)[] = [];
  #shared = false;
  #closing: Promise<void> | undefined;

  constructor(parts: OpenedParts) {
    this.#parts = parts;
    this.filename = parts.file.filename;
    this.format = parts.format instanceof Qcow2Image ? 'qcow2' : 'raw';
    this.readOnly = parts.file.readOnly || parts.options.snapshot !== undefined;
    this.size = parts.format.size;
    this.clusterSize = parts.format.clusterSize;
    this.backing = parts.backing;
    this.#own = this.#addQueue(parts.file, parts.dataFile, () => Promise.resolve());
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#own.read(buffer, offset);
  }

  write(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#own.write(buffer, offset);
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

  writeCompressed(buffer: Uint8Array, offset: number): Promise<void> {
    return this.#own.writeCompressed(buffer, offset);
  }

  flush(): Promise<void> {
    return this.#own.flush();
  }

  info(): Promise<ImageInfo> {
    return imageInfo(this.#parts);
  }

  map(
    range: {
      readonly offset?: number;
      readonly length?: number;
      readonly signal?: AbortSignal;
    } = {},
  ): AsyncIterable<Extent> {
    const offset = Math.min(range.offset ?? 0, this.size);
    const length = Math.min(range.length ?? Infinity, this.size - offset);
    return mapChain(this.#link(), offset, length, range.signal);
  }

  async check(options: LongOperationOptions = {}): Promise<CheckResult> {
    const { format, dataFile } = this.#parts;
    if (!(format instanceof Qcow2Image)) {
      throw new CowherdError(
        'ERR_COWHERD_UNSUPPORTED',
        'This image format does not support checks',
        { filename: this.filename },
      );
    }
    return format.runAlone(() => checkQcow2(format, dataFile, options));
  }

  /** What `attachImage` takes on other threads, as long as some thread has this image open. */
  handle(): ImageHandle {
    const handle = this.#linkHandle();
    if (!this.#shared) this.onClosed(poisonAtThreadEnd(handle));
    this.#shared = true;
    return handle;
  }

  #linkHandle(): ImageHandle {
    const { file, dataFile, format, backing, options, members } = this.#parts;
    if (this.#closing !== undefined) {
      const { filename } = file;
      throw new CowherdError('ERR_COWHERD_CLOSED', `'${filename}' is closed`, { filename });
    }
    return {
      members,
      file: fileHandle(file),
      dataFile: dataFile && fileHandle(dataFile),
      image: format.handle(),
      backing: backing === undefined ? undefined : backing.#linkHandle(),
      options,
    };
  }

  /** Has `action` run when this thread has left the image. */
  onClosed(action: () => void): void {
    this.#onClosed.push(action);
  }

  /** Opens another queue, with its own way into the file and the backing chain. */
  openQueue(): Promise<ImageQueue> {
    const file = this.#parts.file.openQueue();
    const dataFile = this.#parts.dataFile?.openQueue();
    const queue = this.#addQueue(file, dataFile, async () => {
      this.#queues.delete(queue);
      await dataFile?.close();
      await file.close();
    });
    return Promise.resolve(queue);
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeAll();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #closeAll(): Promise<void> {
    const { file, dataFile, backing } = this.#parts;
    try {
      await this.#leave();
    } finally {
      await dataFile?.close();
      await file.close();
      await backing?.close();
      for (const action of this.#onClosed) action();
    }
  }

  /** Ends this thread's queues, and the image's use if no other thread has it open. */
  async #leave(): Promise<void> {
    const { format, members } = this.#parts;
    const ended = await Promise.allSettled([...this.#queues].map((queue) => queue.close()));
    const last = leave(new SharedWords(members));
    for (const end of ended) if (end.status === 'rejected') throw end.reason as Error;
    await format.close(last);
  }

  #addQueue(
    file: StorageFile,
    dataFile: StorageFile | undefined,
    onClose: () => Promise<void>,
  ): CheckedQueue {
    const { format, backing, options } = this.#parts;
    const inner = format.openQueue(file, dataFile, backing?.reader());
    const queue = new CheckedQueue(this, inner, options.detectZeroes ?? 'off', onClose);
    this.#queues.add(queue);
    return queue;
  }

  /** A way for one queue of the image above to read this one. */
  reader(): BackingReader {
    const file = this.#parts.file.openQueue();
    const dataFile = this.#parts.dataFile?.openQueue();
    const queue = this.#parts.format.openQueue(file, dataFile, this.backing?.reader());
    return {
      size: this.size,
      read: (buffer, offset) => queue.read(buffer, offset),
      close: async () => {
        await queue.close();
        await dataFile?.close();
        await file.close();
      },
    };
  }

  #link(): ChainLink {
    return {
      format: this.#parts.format,
      below: this.backing === undefined ? undefined : this.backing.#link(),
    };
  }
}
