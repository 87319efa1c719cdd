/** Serving the disk of an image as one file: a thread's share of the kernel's requests. */
import { constants } from 'node:os';
import {
  type DescriptorWatch,
  closeDescriptor,
  readDescriptor,
  watchSocket,
  writeDescriptor,
} from '../../native/descriptor.js';
import { alignedBuffer } from '../../native/aligned-buffer.js';
import { CowherdError } from '../../errors.js';
import type { Image, RequestTarget } from '../../image/api/image.js';
import { errnoName } from '../../system-errors.js';
import {
  AttributeFlag,
  FallocateMode,
  InitFlag,
  Opcode,
  Whence,
  answerHeadBytes,
  fileNode,
  keepCacheFlag,
  mostDataBytes,
  requestHeadBytes,
  version,
  writeHeadBytes,
} from './protocol.js';

/** Bytes of memory for a request, whose data begin at a page. */
const pageBytes = 4096;
const memoryBytes = pageBytes + mostDataBytes;
/** Requests of a thread under way at a time; further ones wait in the kernel. */
const mostRequests = 64;
/** Seconds for which the kernel believes what it was told of the file. */
const validSeconds = 1;
const blockBytes = 512;
/** Memory of requests that is kept for others. */
const mostSpare = 16;

/** What a session serves. */
export interface FuseFile {
  readonly image: Image;
  readonly queue: RequestTarget;
  readonly readOnly: boolean;
  /** Of the file's owner. */
  readonly userId: number;
  readonly groupId: number;
}

/** A request that is refused. */
class Refused extends Error {
  constructor(readonly code: string) {
    super(code);
  }
}

const nothing = new Uint8Array(0);

/** See the file's comment. */
export class FuseSession {
  /** Resolves when the file system is no longer mounted, or the session was ended, and nothing is under way. */
  readonly ended: Promise<void>;
  readonly #descriptor: number;
  readonly #file: FuseFile;
  readonly #spare: Uint8Array[] = [];
  readonly #begun = Math.floor(Date.now() / 1000);
  #watch: DescriptorWatch | undefined;
  #running = 0;
  #isEnded = false;
  #resolveEnded!: () => void;

  /** @param descriptor of the mount, the session's from now on */
  constructor(descriptor: number, file: FuseFile) {
    this.#descriptor = descriptor;
    this.#file = file;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#listen();
  }

  /** Takes no more requests, and answers those under way. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#watch?.close();
    this.#finishOnceIdle();
  }

  #listen(): void {
    const watch = watchSocket(this.#descriptor, () => {
      this.#take();
    });
    if (typeof watch === 'number') this.end();
    else this.#watch = watch;
  }

  #finishOnceIdle(): void {
    if (!this.#isEnded || this.#running > 0) return;
    closeDescriptor(this.#descriptor);
    this.#resolveEnded();
  }

  /** Takes what is there, as long as there may be more under way. */
  #take(): void {
    while (!this.#isEnded && this.#running < mostRequests) {
      const memory = this.#spare.pop() ?? alignedBuffer(memoryBytes + pageBytes);
      // The data of a write begin at a page.
      const begin = pageBytes - requestHeadBytes - writeHeadBytes;
      const count = readDescriptor(this.#descriptor, memory.subarray(begin, memoryBytes + begin));
      if (count < requestHeadBytes) {
        this.#spare.push(memory);
        // Given up before anybody took it.
        if (count === -2) continue;
        const name = errnoName(count);
        if (name !== 'EAGAIN' && name !== 'EINTR') this.end();
        return;
      }
      this.#start(Buffer.from(memory.buffer, memory.byteOffset + begin, count), memory);
    }
    if (this.#running < mostRequests) return;
    this.#watch?.close();
    this.#watch = undefined;
  }

  #start(request: Buffer, memory: Uint8Array): void {
    const opcode = request.readUInt32LE(4);
    const unique = request.readBigUInt64LE(8);
    this.#running += 1;
    const finish = (error: number, bytes: Uint8Array): void => {
      const isAnswered = opcode !== Opcode.forget && opcode !== Opcode.batchForget;
      if (isAnswered) this.#answer(unique, error, bytes);
      if (this.#spare.length < mostSpare) this.#spare.push(memory);
      this.#running -= 1;
      if (this.#watch === undefined && !this.#isEnded) this.#listen();
      this.#finishOnceIdle();
    };
    this.#run(opcode, request, memory).then(
      (answer) => {
        finish(0, answer);
      },
      (error: unknown) => {
        finish(-numberOf(error), nothing);
      },
    );
  }

  #answer(unique: bigint, error: number, bytes: Uint8Array): void {
    const head = Buffer.alloc(answerHeadBytes);
    head.writeUInt32LE(answerHeadBytes + bytes.length, 0);
    head.writeInt32LE(error, 4);
    head.writeBigUInt64LE(unique, 8);
    // It fails where the request was given up meanwhile, or the file is no longer mounted.
    writeDescriptor(this.#descriptor, head, bytes);
  }

  async #run(opcode: number, request: Buffer, memory: Uint8Array): Promise<Uint8Array> {
    if (opcode === Opcode.init) return this.#agree(request);
    const node = request.readBigUInt64LE(16);
    const body = request.subarray(requestHeadBytes);
    if (node !== BigInt(fileNode) && opcode !== Opcode.destroy) throw new Refused('ENOENT');
    switch (opcode) {
      case Opcode.getattr:
        return this.#attributes();
      case Opcode.setattr:
        return this.#setAttributes(body);
      case Opcode.open:
        return opened;
      case Opcode.read:
        return await this.#read(body, memory);
      case Opcode.write:
        return await this.#write(body);
      case Opcode.fsync:
        await this.#file.queue.flush();
        return nothing;
      case Opcode.fallocate:
        return await this.#allocate(body);
      case Opcode.lseek:
        return await this.#seek(body);
      case Opcode.statfs:
        return this.#space();
      case Opcode.release:
      case Opcode.access:
      case Opcode.destroy:
      case Opcode.forget:
      case Opcode.batchForget:
        return nothing;
      default:
        throw new Refused('ENOSYS');
    }
  }

  /** The first request of a mount. */
  #agree(request: Buffer): Uint8Array {
    const body = request.subarray(requestHeadBytes);
    if (body.readUInt32LE(0) !== version.major) throw new Refused('EPROTO');
    const readahead = body.readUInt32LE(8);
    const { asyncRead, bigWrites, asyncDirectIo, maxPages } = InitFlag;
    const flags = body.readUInt32LE(12) & (asyncRead | bigWrites | asyncDirectIo | maxPages);
    const answer = Buffer.alloc(64);
    answer.writeUInt32LE(version.major, 0);
    answer.writeUInt32LE(version.minor, 4);
    answer.writeUInt32LE(readahead, 8);
    answer.writeUInt32LE(flags, 12);
    answer.writeUInt16LE(mostRequests, 16);
    answer.writeUInt16LE(mostRequests, 18);
    answer.writeUInt32LE(mostDataBytes, 20);
    answer.writeUInt32LE(1, 24);
    answer.writeUInt16LE(mostDataBytes / pageBytes, 28);
    return answer;
  }

  #attributes(): Buffer {
    const { image, readOnly, userId, groupId } = this.#file;
    const answer = Buffer.alloc(104);
    answer.writeBigUInt64LE(BigInt(validSeconds), 0);
    const at = 16;
    answer.writeBigUInt64LE(BigInt(fileNode), at);
    answer.writeBigUInt64LE(BigInt(image.size), at + 8);
    answer.writeBigUInt64LE(BigInt(Math.ceil(image.size / blockBytes)), at + 16);
    for (const time of [24, 32, 40]) answer.writeBigUInt64LE(BigInt(this.#begun), at + time);
    answer.writeUInt32LE(0o100000 | (readOnly ? 0o400 : 0o600), at + 60);
    answer.writeUInt32LE(1, at + 64);
    answer.writeUInt32LE(userId, at + 68);
    answer.writeUInt32LE(groupId, at + 72);
    answer.writeUInt32LE(pageBytes, at + 80);
    return answer;
  }

  #setAttributes(body: Buffer): Uint8Array {
    const isSized = (body.readUInt32LE(0) & AttributeFlag.size) !== 0;
    // A disk stays as large as it is; who it belongs to and when it changed nobody keeps.
    if (isSized && body.readBigUInt64LE(16) !== BigInt(this.#file.image.size)) {
      throw new Refused('EPERM');
    }
    return this.#attributes();
  }

  async #read(body: Buffer, memory: Uint8Array): Promise<Uint8Array> {
    const { image, queue } = this.#file;
    const offset = Number(body.readBigUInt64LE(8));
    const length = Math.min(body.readUInt32LE(16), mostDataBytes, Math.max(0, image.size - offset));
    const data = memory.subarray(pageBytes, pageBytes + length);
    await queue.read(data, offset);
    return data;
  }

  async #write(body: Buffer): Promise<Uint8Array> {
    const { image, queue } = this.#file;
    this.#refuseReadOnly();
    const offset = Number(body.readBigUInt64LE(8));
    const length = Math.min(body.readUInt32LE(16), body.length - writeHeadBytes);
    if (offset >= image.size) throw new Refused('ENOSPC');
    const written = Math.min(length, image.size - offset);
    await queue.write(body.subarray(writeHeadBytes, writeHeadBytes + written), offset);
    const answer = Buffer.alloc(8);
    answer.writeUInt32LE(written, 0);
    return answer;
  }

  async #allocate(body: Buffer): Promise<Uint8Array> {
    const { image, queue } = this.#file;
    this.#refuseReadOnly();
    const [offset, length] = [Number(body.readBigUInt64LE(8)), Number(body.readBigUInt64LE(16))];
    const mode = body.readUInt32LE(24);
    const { keepSize, punchHole, zeroRange } = FallocateMode;
    const isHole = mode === (punchHole | keepSize);
    const isZeroed = (mode & ~keepSize) === zeroRange;
    if (!isHole && !isZeroed) throw new Refused('EOPNOTSUPP');
    if (offset + length > image.size && (mode & keepSize) === 0) throw new Refused('ENOSPC');
    const end = Math.min(offset + length, image.size);
    if (end > offset) await queue.writeZeroes(offset, end - offset, { unmap: isHole });
    return nothing;
  }

  /** Looks for data, or for what reads as zeroes because nothing is stored. */
  async #seek(body: Buffer): Promise<Uint8Array> {
    const { image } = this.#file;
    const offset = Number(body.readBigUInt64LE(8));
    const whence = body.readUInt32LE(16);
    if (whence !== Whence.data && whence !== Whence.hole) throw new Refused('EINVAL');
    if (offset >= image.size) throw new Refused('ENXIO');
    const answer = Buffer.alloc(8);
    for await (const { start, length, zero } of image.map({ offset })) {
      if (length === 0 || zero === (whence === Whence.data)) continue;
      answer.writeBigUInt64LE(BigInt(Math.max(start, offset)), 0);
      return answer;
    }
    if (whence === Whence.data) throw new Refused('ENXIO');
    // Every file ends with a hole.
    answer.writeBigUInt64LE(BigInt(image.size), 0);
    return answer;
  }

  #space(): Buffer {
    const answer = Buffer.alloc(80);
    answer.writeBigUInt64LE(BigInt(Math.ceil(this.#file.image.size / pageBytes)), 0);
    answer.writeBigUInt64LE(1n, 24);
    answer.writeUInt32LE(pageBytes, 40);
    answer.writeUInt32LE(255, 44);
    answer.writeUInt32LE(pageBytes, 48);
    return answer;
  }

  #refuseReadOnly(): void {
    if (this.#file.readOnly) throw new Refused('EROFS');
  }
}

const opened = Buffer.alloc(16);
opened.writeUInt32LE(keepCacheFlag, 8);

function errnoNumber(name: string): number {
  return (constants.errno as Readonly<Record<string, number>>)[name];
}

/** The positive errno that a failure is to who works with the file. */
function numberOf(error: unknown): number {
  if (error instanceof Refused) return errnoNumber(error.code);
  if (!(error instanceof CowherdError)) return errnoNumber('EIO');
  const names: Partial<Record<CowherdError['code'], string>> = {
    ERR_COWHERD_NO_SPACE: 'ENOSPC',
    ERR_COWHERD_NO_MEMORY: 'ENOMEM',
    ERR_COWHERD_READ_ONLY: 'EROFS',
    ERR_COWHERD_OUT_OF_RANGE: 'EINVAL',
    ERR_COWHERD_UNSUPPORTED: 'EOPNOTSUPP',
  };
  return errnoNumber(names[error.code] ?? 'EIO');
}
