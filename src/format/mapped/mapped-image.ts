/** An image that is read by a mapping: its queues and reports, the same for every such format. */
import type { QueueCounters } from '../../engine/queues/counters.js';
import type { Node } from '../../engine/queues/node.js';
import { nameMemoryError, problemWith } from '../../errors.js';
import type { CheckOptions, CheckReport } from '../check.js';
import type {
  BackingChange,
  BackingReader,
  BackingReference,
  DiskResizing,
  FormatDriver,
  FormatHandle,
  FormatImage,
  FormatQueue,
  ImageFiles,
  StoredExtent,
} from '../driver.js';
import type { FormatFacts } from '../facts.js';
import { Growth, GrowingQueue } from './growing-queue.js';
import { MappedQueue } from './mapped-queue.js';
import type {
  ChangingHeader,
  GrowingMapping,
  MappedFormat,
  MappedLayout,
  Mapping,
  Place,
} from './mapping.js';

/** The handle of an image that is read by a mapping. */
interface MappedHandle extends FormatHandle {
  readonly layout: MappedLayout;
}

/** The driver of a format that is read by a mapping. */
export function mappedDriver<Layout extends MappedLayout>(
  format: MappedFormat<Layout>,
): FormatDriver {
  return {
    name: format.name,
    isReadOnly: format.growing === undefined,
    hasBacking: format.hasBacking === true,
    async open(opening) {
      const { layout, children } = await format.readLayout(opening);
      const files: ImageFiles = [opening.file, ...children.map(({ file }) => file)];
      const { readOnly, forCheck } = opening.options;
      const isWritten = !readOnly && !forCheck && !opening.file.readOnly;
      const growing = isWritten ? await format.growing?.(layout, files) : undefined;
      return new MappedImage(format, layout, files, growing, opening.node);
    },
    attach: (files, handle, node) =>
      new MappedImage(format, (handle as MappedHandle).layout as Layout, files, undefined, node),
    ...(format.creation !== undefined && { creation: format.creation }),
    ...(format.stream !== undefined && { stream: format.stream }),
  };
}

class MappedImage<Layout extends MappedLayout> implements FormatImage {
  readonly size: number;
  readonly clusterSize: number | undefined;
  readonly backing: BackingReference | undefined;
  readonly identity: string | undefined;
  readonly check?: (options: CheckOptions) => Promise<CheckReport>;
  readonly resizing?: DiskResizing;
  readonly backingChange?: BackingChange;
  readonly #format: MappedFormat<Layout>;
  readonly #layout: Layout;
  readonly #files: ImageFiles;
  readonly #mapping: Mapping;
  readonly #node: Node;
  /** Of an image that is written to. */
  readonly #growth: Growth | undefined;

  constructor(
    format: MappedFormat<Layout>,
    layout: Layout,
    files: ImageFiles,
    growing: GrowingMapping | undefined,
    node: Node,
  ) {
    this.size = layout.size;
    this.clusterSize = layout.clusterSize;
    this.backing = layout.backing;
    this.identity = layout.identity;
    this.#format = format;
    this.#layout = layout;
    this.#files = files;
    this.#node = node;
    this.#growth = growing && new Growth(growing);
    this.#mapping = growing ?? format.mapping(layout, files);
    if (format.check !== undefined) this.check = (options) => this.#check(options);
    if (growing?.header !== undefined) {
      this.resizing = this.#resizingBy(growing.header);
      this.backingChange = this.#backingChangeBy(growing.header);
    }
  }

  #resizingBy(header: ChangingHeader): DiskResizing {
    return {
      // Not async, but for failures.
      check: (size, preallocation) =>
        Promise.resolve().then(() => {
          header.checkSize(size, this.#node.size, preallocation);
        }),
      grow: () => Promise.resolve(),
      finish: async (size) => {
        await this.#growth?.flush(this.#files);
        await header.writeSize(size);
      },
    };
  }

  #backingChangeBy(header: ChangingHeader): BackingChange {
    return {
      zeroesHide: this.#growth?.mapping.linkZeroes !== undefined,
      check: (backing) => header.checkBacking(backing),
      write: async (backing) => {
        await this.#growth?.flush(this.#files);
        await header.writeBacking(backing);
      },
    };
  }

  get needsCompressedWrites(): boolean {
    return this.#growth?.mapping.needsCompressedWrites === true;
  }

  /** @throws ERR_COWHERD_UNSUPPORTED for an image that is written to: its tables are this thread's alone */
  handle(): MappedHandle {
    if (this.#growth !== undefined) {
      const { filename } = this.#files[0];
      throw problemWith(
        'ERR_COWHERD_UNSUPPORTED',
        filename,
        `images of the ${this.#format.name} format are written by one thread only`,
      );
    }
    return { format: this.#format.name, layout: this.#layout };
  }

  openQueue(
    files: ImageFiles,
    backing: BackingReader | undefined,
    counters: QueueCounters,
  ): FormatQueue {
    const { name } = this.#format;
    if (this.#growth === undefined) {
      return new MappedQueue(name, this.#mapping, files, backing, this.#node, counters);
    }
    return new GrowingQueue(name, this.#growth, files, backing, this.#node, counters);
  }

  async *extents(
    offset: number,
    length: number,
    signal?: AbortSignal,
  ): AsyncGenerator<StoredExtent> {
    const end = offset + length;
    for (let start = offset; start < end;) {
      signal?.throwIfAborted();
      let place = this.#mapping.find(start, end - start);
      if (place instanceof Promise) place = await place;
      yield* this.#extentsOf(start, place);
      start += place.length;
    }
  }

  /** The extents of one place: more than one where holes of its file tell. */
  async *#extentsOf(start: number, place: Place): AsyncGenerator<StoredExtent> {
    const extent = this.#extentOf(start, place);
    if (place.kind !== 'data' || place.hasHoles !== true) {
      yield extent;
      return;
    }
    for (let done = 0; done < place.length;) {
      const offset = place.offset + done;
      const status = await this.#files[place.file].status(offset, place.length - done);
      const length = Math.min(status.length, place.length - done);
      yield { ...extent, start: start + done, length, offset, zero: !status.data };
      done += length;
    }
  }

  #extentOf(start: number, place: Place): StoredExtent {
    const { kind, length } = place;
    const isData = kind === 'data' || kind === 'compressed';
    return {
      start,
      length,
      present: kind !== 'unallocated',
      zero: !isData,
      data: isData,
      compressed: kind === 'compressed',
      ...(kind === 'data' && {
        offset: place.offset,
        filename: this.#files[place.file].filename,
      }),
    };
  }

  async facts(): Promise<FormatFacts> {
    const own = await this.#format.facts?.(this.#layout, this.#files);
    return { clusterSize: this.clusterSize, dirty: false, snapshots: [], ...own };
  }

  async #check(options: CheckOptions): Promise<CheckReport> {
    const check = (): Promise<CheckReport> =>
      this.#format.check!(this.#layout, this.#files, options);
    try {
      return await this.#atRest(check);
    } catch (error) {
      throw nameMemoryError(error, this.#files[0].filename);
    }
  }

  /** Runs work while no block gets a place, and all that have one are found in the file. */
  #atRest<Result>(work: () => Promise<Result>): Promise<Result> {
    const growth = this.#growth;
    if (growth === undefined) return work();
    return this.#node.runAlone(async () => {
      await growth.flush(this.#files);
      return work();
    });
  }

  async settle(): Promise<void> {
    await this.#growth?.flush(this.#files);
  }

  async close(): Promise<void> {
    if (this.#growth === undefined) return;
    const [file] = this.#files;
    await this.#growth.flush(this.#files);
    await this.#growth.mapping.close();
    await file.flush();
  }
}
