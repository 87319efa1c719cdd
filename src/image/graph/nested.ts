/**
 * Images as files: what the guest of one sees is the file of another, or lies below a filter. The name of such a
 * file is that of the image with `nested:` in front.
 */
import { errorFromErrno } from '../../errors.js';
import { BaseFile } from '../../storage/base-file.js';
import type { Protocol } from '../../storage/protocol.js';
import { identifyFile } from '../../storage/registry.js';
import type {
  Completion,
  EventHearer,
  StorageHandle,
  StorageLimits,
  StorageOpenOptions,
  StorageStatus,
} from '../../storage/storage.js';
import { totalLength } from '../../storage/vector.js';
import type { ImageHandle } from '../api/image.js';
import type { OpenImageOptions } from '../api/options.js';
import { nestedPrefix } from '../names/option-reader.js';
import { specificationOf } from '../names/specification.js';
import type { NestedImage, ShownFile } from './shown-image.js';

const protocolName = 'nested';

interface NestedHandle extends StorageHandle {
  readonly image: ImageHandle;
}

/** The protocol of files that are images. @param open opens one */
export function nestedImages(
  open: (name: string, options: OpenImageOptions) => Promise<NestedImage>,
): Protocol {
  return {
    name: protocolName,
    prefix: nestedPrefix,
    isDriver: false,
    async open(name, options) {
      const nested = imageName(name);
      const image = await open(nested, imageOptions(options));
      return new ImageFile(nested, { image, users: 0 });
    },
    // What lies in a file is as good as the file, for who must not open it twice.
    identify: (name) => identifyFile(specificationOf(imageName(name)).path),
  };
}

/** The same where other threads may have opened them. @param attach attaches to an image that is open */
export function attachedNestedImages(
  protocol: Protocol,
  attach: (handle: ImageHandle) => Promise<NestedImage>,
): Protocol {
  return {
    ...protocol,
    async attach(handle) {
      const image = await attach((handle as NestedHandle).image);
      return new ImageFile(handle.filename, { image, users: 0 });
    },
  };
}

/** The name of the image that a file is. */
function imageName(name: string): string {
  return name.slice(nestedPrefix.length);
}

function imageOptions(options: StorageOpenOptions): OpenImageOptions {
  const { readOnly, cache, aio, forceShare, locking, http, nbd, unpack, signal } = options;
  const given = { readOnly, cache, aio, forceShare, locking, http, nbd, unpack };
  return {
    ...given,
    null: options.null,
    // Whether anything is discarded is for the image above to say.
    discard: 'unmap',
    backing: options.isAlone === true ? 'deny' : 'allow',
    shareWriting: options.sharesWriting,
    signal,
  };
}

/** An image, and how many files of this thread are ways into it. */
interface SharedImage {
  readonly image: NestedImage;
  users: number;
}

/** See the file's comment. Its length is fixed. */
class ImageFile extends BaseFile implements ShownFile {
  readonly protocol: string;
  readonly limits: StorageLimits;
  readonly image: NestedImage;
  readonly #shared: SharedImage;

  constructor(filename: string, shared: SharedImage) {
    super(filename, shared.image.readOnly);
    this.#shared = shared;
    this.image = shared.image;
    shared.users += 1;
    this.protocol = this.image.format;
    const { readOnly } = this.image;
    this.limits = {
      requestAlignment: 1,
      zeroInit: false,
      detectsHoles: true,
      blockDevice: !readOnly,
    };
  }

  get events(): EventHearer | undefined {
    return this.image.events;
  }

  override handle(): NestedHandle {
    return { protocol: protocolName, filename: this.filename, image: this.image.handle() };
  }

  openQueue(): ImageFile {
    return new ImageFile(this.filename, this.#shared);
  }

  size(): Promise<number> {
    return Promise.resolve(this.image.size);
  }

  async allocatedSize(): Promise<number | undefined> {
    return (await this.image.info()).actualSize;
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.doReadVector([buffer], offset), completion);
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.doWriteVector([buffer], offset), completion);
  }

  protected async doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const within: Uint8Array[] = [];
    let left = Math.max(0, this.image.size - offset);
    for (const buffer of buffers) {
      const part = buffer.subarray(0, left);
      buffer.fill(0, part.length);
      if (part.length > 0) within.push(part);
      left -= part.length;
    }
    if (within.length > 0) await this.image.readv(within, offset);
  }

  protected async doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const length = totalLength(buffers);
    this.#refuseBeyond(offset, length);
    if (length > 0) await this.image.writev(buffers, offset);
  }

  protected doFlush(): Promise<void> {
    return this.image.flush();
  }

  protected doTruncate(size: number): Promise<void> {
    this.#refuseBeyond(size, 0);
    return Promise.resolve();
  }

  protected async doAllocate(offset: number, length: number): Promise<void> {
    this.#refuseBeyond(offset, length);
    await this.image.reserve(offset, length);
  }

  protected async doWriteZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    this.#refuseBeyond(offset, length);
    await this.image.writeZeroes(offset, length, { unmap });
  }

  protected async doDiscard(offset: number, length: number): Promise<boolean> {
    this.#refuseBeyond(offset, length);
    await this.image.discard(offset, length);
    return false;
  }

  protected async doStatus(offset: number, length: number): Promise<StorageStatus> {
    const left = this.image.size - offset;
    if (left <= 0) return { data: false, length };
    const within = Math.min(left, length);
    // Where an image is written to, asking would have its tables flushed.
    if (!this.readOnly) return { data: true, length: within };
    for await (const extent of this.image.map({ offset, length: within })) {
      return { data: !extent.zero, length: extent.length };
    }
    return { data: true, length: within };
  }

  protected doCopyFrom(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected async doClose(): Promise<void> {
    this.#shared.users -= 1;
    if (this.#shared.users === 0) await this.image.close();
  }

  #refuseBeyond(offset: number, length: number): void {
    if (offset + length <= this.image.size) return;
    const { filename } = this;
    throw errorFromErrno('ENOSPC', `Could not write to '${filename}': No space left on device`, {
      operation: 'write',
      role: 'file',
      filename,
      offset,
      reason: 'No space left on device',
    });
  }
}
