/** Requests of a virtio block device (virtio 1.2, section 5.2.6), done on a queue of an image. */
import { CowherdError } from '../../errors.js';
import type { Image, RequestTarget } from '../../image/api/image.js';
import {
  BlockRequest,
  BlockStatus,
  idBytes,
  mostRangeSectors,
  mostRanges,
  rangeBytes,
  requestHeaderBytes,
  sectorBytes,
} from './protocol.js';
import { BrokenRing, type Chain } from './virtqueue.js';

/** Bytes that a request reads or writes at most. */
const mostDataBytes = 2 ** 31;
const twoTo32 = 2 ** 32;

/** In the flags of a range of WRITE_ZEROES: its clusters may be freed. */
const unmapFlag = 1;

/** What requests are done with. */
export interface BlockTarget {
  readonly image: Image;
  readonly queue: RequestTarget;
  readonly readOnly: boolean;
  /** What GET_ID gives. */
  readonly id: string;
  /** Whether what changes is durable when it is answered. */
  isWriteThrough(): boolean;
  /** Whether the driver goes on with another process if this one ends: then it finds what was answered. */
  readonly isOutlived: boolean;
}

/** A request that is answered with a status of its own, and changes nothing. */
class Refused extends Error {
  constructor(readonly status: number) {
    super();
  }
}

const ioError = new Refused(BlockStatus.ioError);
const unsupported = new Refused(BlockStatus.unsupported);

/**
 * Does a request and writes its status.
 *
 * @returns bytes written into the chain, the status included; never rejects
 * @throws BrokenRing for a chain that is no request at all
 */
export function perform(chain: Chain, target: BlockTarget): Promise<number> {
  const status = lastByteOf(chain.writable);
  const header = takeHeader(chain.readable);
  const failed = (error: unknown): number => {
    status[0] = statusOf(error);
    // The status is the last byte, and how many before it were written nobody knows.
    return 1;
  };
  try {
    return start(header, chain, target).then((written) => {
      status[0] = BlockStatus.ok;
      return written + 1;
    }, failed);
  } catch (error) {
    return Promise.resolve(failed(error));
  }
}

interface Header {
  readonly type: number;
  /** First sector; beyond 2^53 only about. */
  readonly sector: number;
}

/** @returns bytes of data that the driver gets */
function start(
  header: Header,
  { readable, writable }: Chain,
  target: BlockTarget,
): Promise<number> {
  const { queue } = target;
  switch (header.type) {
    case BlockRequest.in: {
      const length = bytesOf(writable);
      const offset = rangeOf(header.sector, length, target);
      const read =
        writable.length === 1 ? queue.read(writable[0], offset) : queue.readv(writable, offset);
      return read.then(() => length);
    }
    case BlockRequest.out: {
      refuseReadOnly(target);
      const length = bytesOf(readable);
      const offset = rangeOf(header.sector, length, target);
      return changed(
        target,
        readable.length === 1 ? queue.write(readable[0], offset) : queue.writev(readable, offset),
      );
    }
    case BlockRequest.flush:
      return queue.flush().then(nothing);
    case BlockRequest.getId:
      return Promise.resolve(writeId(writable, target.id));
    case BlockRequest.discard:
    case BlockRequest.writeZeroes:
      return changed(target, clear(header.type, readable, target));
    default:
      throw unsupported;
  }
}

function nothing(): number {
  return 0;
}

function refuseReadOnly({ readOnly }: BlockTarget): void {
  if (readOnly) throw ioError;
}

/** Ends when the change that has ended is durable too, where it has to be. */
async function changed(target: BlockTarget, change: Promise<unknown>): Promise<number> {
  await change;
  if (target.isWriteThrough()) await target.queue.flush();
  else if (target.isOutlived) await target.queue.settle();
  return 0;
}

/** Where so many bytes from a sector on lie on the disk. */
function rangeOf(sector: number, length: number, { image }: BlockTarget): number {
  const offset = sector * sectorBytes;
  const isWhole = length > 0 && length % sectorBytes === 0 && length <= mostDataBytes;
  if (!isWhole || offset > image.size || length > image.size - offset) throw ioError;
  return offset;
}

/** Discards ranges, or has them read as zeroes. */
async function clear(
  type: number,
  readable: readonly Uint8Array[],
  target: BlockTarget,
): Promise<void> {
  refuseReadOnly(target);
  const { queue } = target;
  const isDiscard = type === BlockRequest.discard;
  const length = bytesOf(readable);
  if (length === 0 || length % rangeBytes !== 0 || length > mostRanges * rangeBytes) throw ioError;
  // Looked at once: the guest may change it meanwhile.
  const bytes = Buffer.concat(readable);
  const ranges: { offset: number; length: number; unmap: boolean }[] = [];
  for (let at = 0; at < length; at += rangeBytes) {
    const sectors = bytes.readUInt32LE(at + 8);
    const flags = bytes.readUInt32LE(at + 12);
    if ((flags & ~unmapFlag) !== 0 || (isDiscard && flags !== 0)) throw unsupported;
    if (sectors > mostRangeSectors) throw ioError;
    const sector = bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * twoTo32;
    const rangeLength = sectors * sectorBytes;
    if (rangeLength === 0) continue;
    const offset = rangeOf(sector, rangeLength, target);
    ranges.push({ offset, length: rangeLength, unmap: flags === unmapFlag });
  }
  for (const { offset, length: rangeLength, unmap } of ranges) {
    if (isDiscard) await queue.discard(offset, rangeLength);
    else await queue.writeZeroes(offset, rangeLength, { unmap });
  }
}

function writeId(writable: readonly Uint8Array[], id: string): number {
  const bytes = Buffer.alloc(idBytes);
  bytes.write(id);
  let done = 0;
  for (const part of writable) {
    const count = Math.min(part.length, idBytes - done);
    part.set(bytes.subarray(done, done + count));
    done += count;
  }
  return done;
}

function bytesOf(parts: readonly Uint8Array[]): number {
  if (parts.length === 1) return parts[0].length;
  return parts.reduce((sum, { length }) => sum + length, 0);
}

/** Takes the last byte off what is written. @throws BrokenRing where there is none */
function lastByteOf(writable: Uint8Array[]): Uint8Array {
  const last = writable.at(-1);
  if (last === undefined) throw new BrokenRing('a request has no room for its status');
  if (last.length === 1) writable.pop();
  else writable[writable.length - 1] = last.subarray(0, -1);
  return last.subarray(-1);
}

/** Takes the header off what is read. @throws BrokenRing where it is not all there */
function takeHeader(readable: Uint8Array[]): Header {
  let [bytes] = readable as (Uint8Array | undefined)[];
  if (bytes?.length === requestHeaderBytes) {
    readable.shift();
  } else {
    if (bytesOf(readable) < requestHeaderBytes) throw new BrokenRing('a request has no header');
    bytes = new Uint8Array(requestHeaderBytes);
    for (let done = 0; done < requestHeaderBytes;) {
      const [part] = readable;
      const count = Math.min(part.length, requestHeaderBytes - done);
      bytes.set(part.subarray(0, count), done);
      done += count;
      if (count === part.length) readable.shift();
      else readable[0] = part.subarray(count);
    }
  }
  return {
    type: wordAt(bytes, 0),
    sector: wordAt(bytes, 8) + wordAt(bytes, 12) * twoTo32,
  };
}

/** A number of 32 bits, its lowest byte first. */
function wordAt(bytes: Uint8Array, at: number): number {
  const high = bytes[at + 3] * 0x1000000;
  return high + (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16));
}

function statusOf(error: unknown): number {
  if (error instanceof Refused) return error.status;
  const isUnknown = error instanceof CowherdError && error.code === 'ERR_COWHERD_UNSUPPORTED';
  return isUnknown ? BlockStatus.unsupported : BlockStatus.ioError;
}
