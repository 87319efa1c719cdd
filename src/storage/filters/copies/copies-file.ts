/** A file that is kept in several copies: what is written goes to all of them. */
import { BaseFile } from '../../base-file.js';
import type {
  AllocateMode,
  Completion,
  StorageFile,
  StorageHandle,
  StorageLimits,
  StorageStatus,
} from '../../storage.js';
import type { FilterUse } from '../filter.js';
import type { FilterHandle } from '../filter-file.js';

/** See the file's comment. What is made of the outcomes of all copies is the filter's. */
export abstract class CopiesFile extends BaseFile {
  readonly protocol: string;
  readonly limits: StorageLimits;
  readonly isScattered = true;
  protected readonly files: readonly StorageFile[];
  protected readonly use: FilterUse;

  constructor(files: readonly StorageFile[], use: FilterUse) {
    const [first] = files;
    super(first.filename, first.readOnly);
    this.files = files;
    this.use = use;
    this.protocol = first.protocol;
    const limits = files.map((file) => file.limits);
    this.limits = {
      requestAlignment: Math.max(...limits.map((each) => each.requestAlignment)),
      zeroInit: limits.every((each) => each.zeroInit),
      detectsHoles: limits.every((each) => each.detectsHoles),
      blockDevice: limits.some((each) => each.blockDevice),
    };
  }

  /** What comes of a change that all copies have ended. @throws Error if it has failed */
  protected abstract judge(ended: readonly PromiseSettledResult<unknown>[]): void;

  override handle(): FilterHandle | undefined {
    const handles: StorageHandle[] = [];
    for (const file of this.files) {
      const handle = file.handle?.();
      if (handle === undefined) return undefined;
      handles.push(handle);
    }
    const [inner, ...others] = handles as [StorageHandle, ...StorageHandle[]];
    const { protocol, filename, use: filter } = this;
    return { protocol, filename, inner, others, filter };
  }

  async size(): Promise<number> {
    const sizes = await Promise.all(this.files.map((file) => file.size()));
    return Math.min(...sizes);
  }

  async allocatedSize(): Promise<number | undefined> {
    const sizes = await Promise.all(this.files.map((file) => file.allocatedSize()));
    return sizes.reduce((sum, each) =>
      sum === undefined || each === undefined ? undefined : sum + each,
    );
  }

  protected startRead(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.doReadVector([buffer], offset), completion);
  }

  protected startWrite(buffer: Uint8Array, offset: number, completion: Completion): void {
    this.settle(this.doWriteVector([buffer], offset), completion);
  }

  protected async doWriteVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    await this.#onAll((file) => file.writeVector(buffers, offset));
  }

  protected async doFlush(): Promise<void> {
    await this.#onAll((file) => file.flush());
  }

  protected async doTruncate(size: number, reserve: boolean): Promise<void> {
    await this.#onAll((file) => file.truncate(size, reserve));
  }

  protected async doAllocate(offset: number, length: number, mode: AllocateMode): Promise<void> {
    await this.#onAll((file) => file.allocate(offset, length, mode));
  }

  protected async doWriteZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    await this.#onAll((file) => file.writeZeroes(offset, length, unmap));
  }

  protected async doDiscard(offset: number, length: number): Promise<boolean> {
    const ended = await this.#onAll((file) => file.discard(offset, length));
    return ended.every((each) => each.status === 'fulfilled' && each.value);
  }

  /** Data where any of the copies has data. */
  protected async doStatus(offset: number, length: number): Promise<StorageStatus> {
    const found = await Promise.all(this.files.map((file) => file.status(offset, length)));
    const least = Math.min(...found.map((each) => each.length));
    return { data: found.some((each) => each.data), length: least };
  }

  protected doCopyFrom(): Promise<boolean> {
    return Promise.resolve(false);
  }

  protected async doClose(): Promise<void> {
    const ended = await Promise.allSettled(this.files.map((file) => file.close()));
    const failed = ended.find((each) => each.status === 'rejected');
    if (failed !== undefined) throw failed.reason as Error;
  }

  async #onAll<Result>(
    change: (file: StorageFile) => Promise<Result>,
  ): Promise<readonly PromiseSettledResult<Result>[]> {
    const ended = await Promise.allSettled(this.files.map(change));
    this.judge(ended);
    return ended;
  }
}
