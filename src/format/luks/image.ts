/** An encrypted disk behind its header: guest offsets are offsets behind that, and sectors are enciphered by them. */
import type { QueueCounters } from '../../engine/queues/counters.js';
import { Entrance, type Node } from '../../engine/queues/node.js';
import { RequestPool } from '../../engine/queues/request-pool.js';
import { givenAway, problemWith } from '../../errors.js';
import { reserveBlocks } from '../../storage/preallocate.js';
import type { StorageFile } from '../../storage/storage.js';
import type {
  Amendment,
  BackingReader,
  DiskResizing,
  FormatHandle,
  FormatImage,
  FormatQueue,
  ImageFiles,
  StoredExtent,
} from '../driver.js';
import { DescribedQueue } from '../encryption/described-queue.js';
import {
  type DiskKey,
  type PayloadCipher,
  forgetKey,
  payloadCipher,
} from '../encryption/disk-key.js';
import { luksFacts } from '../encryption/facts.js';
import type { LuksHeader } from '../encryption/luks-header.js';
import { writeWithin } from '../encryption/partial-sectors.js';
import { Passwords } from '../encryption/passwords.js';
import { Payload, isWhole } from '../encryption/payload.js';
import { refusingImage } from '../encryption/secret.js';
import type { FormatFacts } from '../facts.js';
import { fileResizing } from '../file-resizing.js';

const sectorBytes = 512;
/** Bytes of zeroes that are enciphered at once. */
const zeroBytes = 1024 * 1024;

/** What another thread needs to have an encrypted disk open too. */
export interface LuksHandle extends FormatHandle {
  readonly format: 'luks';
  readonly header: LuksHeader;
  /** Virtual size in bytes. */
  readonly size: number;
  /** Absent of a disk that is described only. */
  readonly diskKey: DiskKey | undefined;
}

/** What only such images have to tell. */
export interface LuksInfo extends Partial<ReturnType<typeof luksFacts>> {
  readonly type: 'luks';
}

/** Where in its file a disk begins, in bytes. */
export function payloadOffsetOf({ payloadSector }: LuksHeader): number {
  return payloadSector * sectorBytes;
}

/** An encrypted disk open on this thread. */
export class LuksImage implements FormatImage {
  readonly size: number;
  readonly clusterSize = undefined;
  readonly backing = undefined;
  readonly beginsAsNoise = true;
  readonly resizing: DiskResizing;
  readonly amendment: Amendment | undefined;
  readonly #file: StorageFile;
  readonly #handle: LuksHandle;
  readonly #node: Node;
  readonly #cipher: PayloadCipher | undefined;

  constructor(file: StorageFile, handle: LuksHandle, node: Node) {
    this.#file = file;
    this.size = handle.size;
    this.#handle = handle;
    this.#node = node;
    this.#cipher = handle.diskKey && payloadCipher(handle.diskKey);
    this.amendment = handle.diskKey && passwordAmendment(file, handle.diskKey);
    this.resizing = fileResizing(file, node, payloadOffsetOf(handle.header));
  }

  handle(): LuksHandle {
    return { ...this.#handle, size: this.#node.size };
  }

  openQueue(
    [file]: ImageFiles,
    _backing: BackingReader | undefined,
    counters: QueueCounters,
  ): FormatQueue {
    if (this.#cipher === undefined) return new DescribedQueue(file.filename);
    const first = payloadOffsetOf(this.#handle.header);
    return new LuksQueue(file, first, this.#cipher, this.#node, counters);
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- others have to ask their files
  async *extents(offset: number, length: number): AsyncGenerator<StoredExtent> {
    const known = { present: true, zero: false, data: true, compressed: false };
    if (length > 0) yield { start: offset, length, ...known };
  }

  facts(): Promise<FormatFacts> {
    const { header } = this.#handle;
    const told = luksFacts(header, refusingImage(this.#file.filename));
    const specific: LuksInfo = { type: 'luks', ...told };
    return Promise.resolve({ dirty: false, snapshots: [], encrypted: true, specific });
  }

  async close(last: boolean): Promise<void> {
    const { diskKey } = this.#handle;
    try {
      if (!this.#file.readOnly) await this.#file.flush();
    } finally {
      if (last && diskKey !== undefined) forgetKey(diskKey);
    }
  }
}

/** How the passwords of an image change, which is all that can. */
function passwordAmendment(file: StorageFile, diskKey: DiskKey): Amendment {
  const passwords = new Passwords(file, file.filename, diskKey);
  return {
    check({ encrypt = {} }) {
      passwords.check(encrypt);
      return Promise.resolve();
    },
    begin: ({ encrypt = {} }) => passwords.change(encrypt),
    finish: () => Promise.resolve(),
  };
}

class LuksQueue implements FormatQueue {
  readonly #file: StorageFile;
  readonly #first: number;
  readonly #payload: Payload;
  readonly #node: Node;
  readonly #counters: QueueCounters;
  readonly #entrance: Entrance;
  readonly #transfers: RequestPool;

  /** @param first where in the file the disk begins, in bytes */
  constructor(
    file: StorageFile,
    first: number,
    cipher: PayloadCipher,
    node: Node,
    counters: QueueCounters,
  ) {
    this.#file = file;
    this.#first = first;
    this.#payload = new Payload(file, first, cipher);
    this.#node = node;
    this.#counters = counters;
    this.#entrance = new Entrance(node);
    this.#transfers = new RequestPool(counters, () => {
      this.#entrance.leave();
    });
  }

  read(buffer: Uint8Array, offset: number): Promise<void> {
    const submit = (): Promise<void> =>
      this.#transfers.submitRead(this.#payload, buffer, this.#first + offset, 0, offset);
    return this.#entrance.tryEnter() ? submit() : this.#onceOpen(buffer, submit);
  }

  write(buffer: Uint8Array, offset: number): Promise<void> {
    if (!isWhole(offset, buffer.length)) return this.#writeWithin(buffer, offset);
    const submit = (): Promise<void> =>
      this.#transfers.submitWrite(this.#payload, buffer, this.#first + offset, 0, offset);
    return this.#entrance.tryEnter() ? submit() : this.#onceOpen(buffer, submit);
  }

  readVector(buffers: readonly Uint8Array[], _length: number, offset: number): Promise<void> {
    return this.#run(() => this.#payload.readVector(buffers, offset, this.#first + offset));
  }

  writeVector(
    buffers: readonly Uint8Array[],
    length: number,
    offset: number,
  ): Promise<void> | undefined {
    if (!isWhole(offset, length)) return undefined;
    return this.#run(() => this.#payload.writeVector(buffers, offset, this.#first + offset));
  }

  /** Submits a request once the gate is open, unless its buffer was given away meanwhile. */
  async #onceOpen(buffer: Uint8Array, submit: () => Promise<void>): Promise<void> {
    const { length } = buffer;
    await this.#entrance.enter();
    if (buffer.length === length) return submit();
    this.#entrance.leave();
    throw givenAway(this.#file.filename);
  }

  /** Writes parts of sectors, while nobody else writes. */
  #writeWithin(buffer: Uint8Array, offset: number): Promise<void> {
    const { length } = buffer;
    const access = {
      read: (bytes: Uint8Array, at: number) => this.#payload.read(bytes, at, this.#first + at),
      write: (bytes: Uint8Array, at: number) => this.#payload.write(bytes, at, this.#first + at),
    };
    return this.#counters.run(() =>
      this.#node.runAlone(async () => {
        if (buffer.length !== length) throw givenAway(this.#file.filename);
        await writeWithin(access, buffer, offset);
      }),
    );
  }

  /** Zeroes are enciphered as other bytes are. */
  async writeZeroes(offset: number, length: number): Promise<void> {
    const zeroes = new Uint8Array(Math.min(length, zeroBytes));
    for (let done = 0; done < length; done += zeroes.length) {
      await this.write(zeroes.subarray(0, Math.min(zeroes.length, length - done)), offset + done);
    }
  }

  /** What a file has no more would be read as noise. */
  discard(): Promise<void> {
    return Promise.resolve();
  }

  writeCompressed(): Promise<void> {
    const why = 'the luks format does not support compression';
    return Promise.reject(problemWith('ERR_COWHERD_UNSUPPORTED', this.#file.filename, why));
  }

  reserve(offset: number, length: number): Promise<boolean> {
    return this.#entrance.run(() => reserveBlocks(this.#file, this.#first + offset, length));
  }

  dataCopy(): undefined {
    return undefined;
  }

  flush(): Promise<void> {
    return this.#run(() => this.#file.flush());
  }

  settle(): Promise<void> {
    return Promise.resolve();
  }

  #run<Result>(request: () => Promise<Result>): Promise<Result> {
    return this.#counters.run(() => this.#entrance.run(request));
  }

  close(): Promise<void> {
    return this.#entrance.close();
  }
}
