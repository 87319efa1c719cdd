/**
 * Copy-on-write: what has to be written beside the bytes of a request, because the host cluster that
 * they go to does not hold the rest of the guest cluster.
 *
 *     [ head ][ bytes of the request ][ tail ]      one write, up to whole clusters or subclusters
 *
 * Edges are read through the chain, unless they are known to be zeroes; where the host cluster reads as
 * zeroes too, they need not be written.
 */
import { type GuestOffset, type HostOffset, after } from '../layout/geometry.js';
import type { QueueContext } from './queue-context.js';
import { nothingBelow } from './queue-context.js';
import { ClusterKind } from '../layout/l2-entry.js';
import type { Reader } from './reader.js';

/** Guest bytes on one side of those of a request. */
interface Edge {
  /** Bytes. */
  readonly length: number;
  /** Whether they are known to read as zeroes. */
  readonly isZero: boolean;
}

/** The edges of an allocation. */
export interface Edges {
  readonly head: Edge;
  readonly tail: Edge;
}

/** Where an allocation's clusters lie, and what is around the bytes of its request. Offsets in bytes. */
export interface Placement {
  /** Of the first cluster. */
  readonly guestOffset: GuestOffset;
  /** Of the first cluster. */
  readonly hostOffset: HostOffset;
  /** Whether the host clusters read as zeroes to the guest. */
  readonly knownZero: boolean;
  readonly edges: Edges;
}

/** One queue's copies on write. */
export class CopyOnWrite {
  readonly #context: QueueContext;
  readonly #reader: Pick<Reader, 'read'>;

  constructor(context: QueueContext, reader: Pick<Reader, 'read'>) {
    this.#context = context;
    this.#reader = reader;
  }

  /**
   * The edges of bytes that go to new host clusters; the caller holds the slice's word.
   *
   * @param first where the entry of the first cluster lies, and `last` that of the last one
   * @param granule bytes that are written as a whole: those of a cluster, or of a subcluster
   */
  edgesOfNew(
    first: number,
    last: number,
    offset: GuestOffset,
    length: number,
    granule: number,
  ): Edges {
    const over = offset % granule;
    return {
      head: { length: over, isZero: isKnownZero(this.#context, first, after(offset, -over)) },
      tail: this.#edge(last, after(offset, length), toMultiple(offset + length, granule)),
    };
  }

  /**
   * The edges of bytes that go to a host cluster which the entry at `at` has already, but of which not
   * all content is valid; the caller holds the slice's word.
   */
  edgesOfKept(at: number, offset: GuestOffset, length: number): Edges {
    const { geometry, entries, l2Cache } = this.#context.metadata;
    const { subclusterSize } = geometry;
    const allocated = geometry.extendedL2 ? entries.allocatedBits(l2Cache.view, at) : 0;
    // The rest of a subcluster that is written already stays; others may be writing there.
    const isAllocated = (byte: number): boolean =>
      ((allocated >>> Math.floor(byte / subclusterSize)) & 1) !== 0;
    const within = geometry.within(offset);
    const end = within + length;
    const head = isAllocated(within) ? 0 : within % subclusterSize;
    const tail = isAllocated(end - 1) ? 0 : toMultiple(end, subclusterSize);
    return { head: this.#edge(at, offset, head), tail: this.#edge(at, offset, tail) };
  }

  /**
   * Writes the bytes of a request with their edges as one request.
   *
   * @param offset guest offset of the bytes
   * @param bytesOf gives them, once the edges are there
   */
  async write(
    { guestOffset, hostOffset, knownZero, edges }: Placement,
    offset: GuestOffset,
    length: number,
    bytesOf: () => Uint8Array,
  ): Promise<void> {
    if (edges.head.length + edges.tail.length > 0)
      await this.#context.file.events?.hear('cow_read');
    const fills: Promise<void>[] = [];
    const content = ({ length, isZero }: Edge, from: GuestOffset): readonly Uint8Array[] => {
      if (length === 0 || (knownZero && isZero)) return [];
      const bytes = new Uint8Array(length);
      if (!isZero) fills.push(this.#reader.read(bytes, from));
      return [bytes];
    };
    const head = content(edges.head, after(offset, -edges.head.length));
    const tail = content(edges.tail, after(offset, length));
    // Also after a failure no read may go on once the request has left the gate.
    await Promise.allSettled(fills);
    await Promise.all(fills);
    const { payload, externalData, metadata } = this.#context;
    const from = head.length > 0 ? after(offset, -edges.head.length) : offset;
    const buffers = [...head, bytesOf(), ...tail];
    // An external data file ends with the disk, not with the disk's last cluster.
    const written = externalData ? upTo(buffers, metadata.diskSize - from) : buffers;
    await payload.writeVector(written, from, after(hostOffset, from - guestOffset));
  }

  #edge(at: number, offset: GuestOffset, length: number): Edge {
    return { length, isZero: isKnownZero(this.#context, at, offset) };
  }
}

/**
 * Whether the bytes of a cluster that are not written in it are known to read as zeroes, from a guest
 * offset in bytes on, by its entry at `at` alone; the caller holds the slice's word.
 */
export function isKnownZero(context: QueueContext, at: number, guestOffset: GuestOffset): boolean {
  const { entries, l2Cache } = context.metadata;
  const kind = entries.kind(l2Cache.view, at);
  if (kind === ClusterKind.zeroPlain || kind === ClusterKind.zeroAllocated) return true;
  return kind === ClusterKind.unallocated && nothingBelow(context, guestOffset);
}

/** Bytes from `offset` up to the next multiple of `granule`; 0 on a multiple. */
function toMultiple(offset: number, granule: number): number {
  const over = offset % granule;
  return over === 0 ? 0 : granule - over;
}

/** The first `length` bytes of buffers that lie one after the other. */
function upTo(buffers: readonly Uint8Array[], length: number): readonly Uint8Array[] {
  let left = length;
  return buffers.map((buffer) => {
    const part = buffer.subarray(0, Math.max(0, left));
    left -= buffer.length;
    return part;
  });
}
