/**
 * The edge from an image to the one it stands on. Another image can be put there while no request runs:
 * what is there now is said in memory that all threads share, and each thread follows when it next reads
 * what is below.
 */
import type { Node } from '../../engine/queues/node.js';
import { CowherdError, problemWith } from '../../errors.js';
import type { BackingReader } from '../../format/driver.js';
import { closeEach } from './cleanup-steps.js';

/** Bytes that the name of an image may take, with its format. */
const mostRecordBytes = 65536;

interface Closable {
  close(): Promise<void>;
}

/** An image by which another one stands, as the edge needs it. */
export interface ImageBelow extends Closable {
  readonly size: number;
  /** A way for one queue of the image above. */
  reader(): BackingReader;
}

/** How the image below is opened by the threads that did not put it there. */
export interface BelowName {
  /** Left out where there is none any more. */
  readonly name?: string | undefined;
  readonly format?: string | undefined;
  /** Whether the image above says it; else a caller. */
  readonly isStored?: boolean;
}

/** Memory for the name of what was put below, which all threads share. */
export function allocateEdgeRecord(): SharedArrayBuffer {
  return new SharedArrayBuffer(0, { maxByteLength: mostRecordBytes });
}

/** One thread's end of the edge. */
export class BackingEdge<Below extends ImageBelow> {
  readonly #node: Node;
  readonly #record: SharedArrayBuffer;
  readonly #open: (below: BelowName) => Promise<Below | undefined>;
  readonly #queues = new Set<QueueEdge>();
  #image: Below | undefined;
  /** Its name; undefined where another thread knows it alone. */
  #name: BelowName | undefined;
  /** The replacement that `#image` came with. */
  #replacement: number;
  #following: Promise<void> | undefined;
  #isClosed = false;

  /**
   * @param record from `allocateEdgeRecord`
   * @param replacement which one `image` came with: `node.edgeReplacements` at that time
   * @param open opens what another thread has put there
   * @param name of `image`, if that is known
   */
  constructor(
    node: Node,
    record: SharedArrayBuffer,
    image: Below | undefined,
    replacement: number,
    open: (below: BelowName) => Promise<Below | undefined>,
    name?: BelowName,
  ) {
    this.#node = node;
    this.#record = record;
    this.#image = image;
    this.#replacement = replacement;
    this.#open = open;
    this.#name = name;
  }

  /** The image below, as far as this thread has followed. */
  get image(): Below | undefined {
    return this.#image;
  }

  get replacement(): number {
    return this.#replacement;
  }

  /** Bytes of the image below, whichever that is now; 0 if there is none. */
  get size(): number {
    return this.#node.belowSize;
  }

  get isCurrent(): boolean {
    return this.#replacement === this.#node.edgeReplacements;
  }

  /** Adds a queue's own way to what is below. */
  openQueue(): BackingReader {
    const queue = new QueueEdge(this, () => this.#queues.delete(queue));
    this.#queues.add(queue);
    return queue;
  }

  /** Has this thread stand on what was put below by another one. @throws what opening it throws */
  follow(): Promise<void> {
    if (this.isCurrent) return Promise.resolve();
    this.#following ??= this.#follow().finally(() => {
      this.#following = undefined;
    });
    return this.#following;
  }

  async #follow(): Promise<void> {
    while (!this.isCurrent) {
      const replacement = this.#node.edgeReplacements;
      const text = readRecord(this.#record);
      // Half of it may be one name and half another, if it was replaced meanwhile.
      if (replacement !== this.#node.edgeReplacements) continue;
      const image = await this.#open(JSON.parse(text) as BelowName);
      const isSame = replacement === this.#node.edgeReplacements;
      await closeEach(isSame ? this.#swap(image, replacement) : [image]);
    }
  }

  /**
   * Puts another image below on all threads, or none.
   *
   * @throws ERR_COWHERD_INVALID_ARGUMENT if its name is longer than can be told, or what opening it throws
   */
  async replace(below: BelowName): Promise<void> {
    const text = new TextEncoder().encode(JSON.stringify(below));
    if (text.length > mostRecordBytes) {
      const why = 'the name of the backing file is too long';
      throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', this.#node.filename, why);
    }
    const image = await this.#open(below);
    let before: readonly (Closable | undefined)[] = [image];
    try {
      await this.#node.runAlone(() => {
        this.#node.replaceEdge(image?.size ?? 0, () => {
          writeRecord(this.#record, text);
        });
        before = this.#swap(image, this.#node.edgeReplacements);
        this.#name = below;
        return Promise.resolve();
      });
    } finally {
      await closeEach(before);
    }
  }

  /** Leaves the image below, which can be opened for writing then; no queue runs a request until `comeBack`. */
  async leave(): Promise<void> {
    await closeEach(this.#swap(undefined, this.#replacement));
  }

  /** Stands on it again, however large it has become. @throws what opening it throws */
  async comeBack(): Promise<void> {
    const image = this.#name && (await this.#open(this.#name));
    this.#node.replaceEdge(image?.size ?? 0);
    await closeEach(this.#swap(image, this.#node.edgeReplacements));
  }

  /** Stands on an image. @returns what is to be closed: the ways of the queues, and the image before */
  #swap(image: Below | undefined, replacement: number): readonly (Closable | undefined)[] {
    if (this.#isClosed) return [image];
    const before = this.#image;
    this.#image = image;
    this.#replacement = replacement;
    return [...[...this.#queues].map((queue) => queue.detach()), before];
  }

  async close(): Promise<void> {
    await this.#following?.catch(() => undefined);
    this.#isClosed = true;
    await this.#image?.close();
  }
}

/** Writes a text over the one before, with spaces after it. */
function writeRecord(record: SharedArrayBuffer, text: Uint8Array): void {
  if (record.byteLength < text.length) record.grow(text.length);
  const bytes = new Uint8Array(record);
  bytes.fill(0x20);
  bytes.set(text);
}

function readRecord(record: SharedArrayBuffer): string {
  // Text is decoded of memory that is not shared.
  return new TextDecoder().decode(new Uint8Array(record).slice());
}

/** The edge as one queue follows it. */
class QueueEdge implements BackingReader {
  readonly #edge: BackingEdge<ImageBelow>;
  readonly #onClosed: () => void;
  #reader: BackingReader | undefined;
  #isClosed = false;

  constructor(edge: BackingEdge<ImageBelow>, onClosed: () => void) {
    this.#edge = edge;
    this.#onClosed = onClosed;
    this.#reader = edge.image?.reader();
  }

  get size(): number {
    return this.#edge.size;
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    if (this.#reader !== undefined && this.#edge.isCurrent)
      return this.#reader.read(buffer, offset);
    return this.#readAnew(buffer, offset);
  }

  async #readAnew(buffer: Uint8Array, offset: number): Promise<void> {
    await this.#edge.follow();
    this.#reader ??= this.#openReader();
    await this.#reader.read(buffer, offset);
  }

  async isKnownZero(offset: number, length: number): Promise<boolean> {
    await this.#edge.follow();
    this.#reader ??= this.#openReader();
    return this.#reader.isKnownZero(offset, length);
  }

  #openReader(): BackingReader {
    const { image } = this.#edge;
    if (image !== undefined && !this.#isClosed) return image.reader();
    throw new CowherdError('ERR_COWHERD_CLOSED', 'What lies below the image is closed');
  }

  /** Leaves the image below. @returns the way to it, to be closed */
  detach(): BackingReader | undefined {
    const reader = this.#reader;
    this.#reader = undefined;
    return reader;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#onClosed();
    await this.detach()?.close();
  }
}
