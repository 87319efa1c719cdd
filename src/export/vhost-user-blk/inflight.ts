/**
 * Which requests of a queue are under way, in memory that outlives this process (QEMU's vhost-user.rst,
 * "Inflight I/O tracking", split virtqueue): whoever goes on after us does them again.
 */

/** Version of the layout. */
const version = 1;
/** Bytes before the entries: features, version, size, head of the last answer, index of the answers. */
const headBytes = 16;
/** Bytes of an entry: whether it is under way, the answer before it, its number in the order of taking. */
const entryBytes = 16;
/** What the part of each queue begins at a multiple of. */
const alignment = 64;

const At = { version: 8, size: 10, lastHead: 12, usedIndex: 14 } as const;
const EntryAt = { isUnderWay: 0, before: 6, number: 8 } as const;

/** Bytes of the part of a queue. @param size descriptors of its ring */
export function inflightBytes(size: number): number {
  return Math.ceil((headBytes + entryBytes * size) / alignment) * alignment;
}

/** The part of one queue. */
export class Inflight {
  readonly #view: DataView;
  readonly #size: number;
  #number = 0n;
  /** Answered, and not yet seen by the driver. */
  #answered: number[] = [];

  /** @param memory of `inflightBytes(size)` */
  constructor(memory: Uint8Array, size: number) {
    this.#view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    this.#size = size;
  }

  /**
   * Takes over what another process, or nobody, has left.
   *
   * @param usedIndex what the driver sees of the answers
   * @returns heads of the requests that are under way, in the order in which they were taken
   */
  recover(usedIndex: number): readonly number[] {
    const view = this.#view;
    if (view.getUint16(At.version, true) !== version) {
      view.setUint16(At.version, version, true);
      view.setUint16(At.size, this.#size, true);
      view.setUint16(At.usedIndex, usedIndex, true);
      return [];
    }
    let head = view.getUint16(At.lastHead, true);
    const unnoted = (usedIndex - view.getUint16(At.usedIndex, true)) & 0xffff;
    for (let count = 0; count < Math.min(unnoted, this.#size) && head < this.#size; count++) {
      view.setUint8(this.#entry(head) + EntryAt.isUnderWay, 0);
      head = view.getUint16(this.#entry(head) + EntryAt.before, true);
    }
    view.setUint16(At.usedIndex, usedIndex, true);
    const found: { readonly head: number; readonly number: bigint }[] = [];
    for (let each = 0; each < this.#size; each++) {
      const entry = this.#entry(each);
      if (view.getUint8(entry + EntryAt.isUnderWay) !== 1) continue;
      const number = view.getBigUint64(entry + EntryAt.number, true);
      found.push({ head: each, number });
      if (number >= this.#number) this.#number = number + 1n;
    }
    return found
      .sort((one, other) => (one.number < other.number ? -1 : 1))
      .map(({ head: each }) => each);
  }

  /** Notes that a request was taken. */
  take(head: number): void {
    const entry = this.#entry(head);
    this.#view.setBigUint64(entry + EntryAt.number, this.#number, true);
    this.#number += 1n;
    this.#view.setUint8(entry + EntryAt.isUnderWay, 1);
  }

  /** Notes that a request is about to be answered. */
  answer(head: number): void {
    this.#view.setUint16(
      this.#entry(head) + EntryAt.before,
      this.#view.getUint16(At.lastHead, true),
      true,
    );
    this.#view.setUint16(At.lastHead, head, true);
    this.#answered.push(head);
  }

  /** Notes that the driver sees all answers up to this index. */
  published(usedIndex: number): void {
    for (const head of this.#answered) {
      this.#view.setUint8(this.#entry(head) + EntryAt.isUnderWay, 0);
    }
    this.#answered = [];
    this.#view.setUint16(At.usedIndex, usedIndex, true);
  }

  #entry(head: number): number {
    return headBytes + entryBytes * head;
  }
}
