/**
 * A count for every host cluster in two bits each, for walks over whole images: counts of three and
 * more, which are rare, stand in a map beside it.
 */

const perByte = 4;
const overflow = 3;
/** Four counts of one in a byte. */
const allOnes = 0x55;

/** Counts of host clusters, all zero at first. */
export class PackedCounts {
  readonly #length: number;
  readonly #bytes: Uint8Array<SharedArrayBuffer>;
  readonly #large = new Map<number, number>();

  readonly #limit: number;
  readonly #onOverflow: (cluster: number) => void;

  /**
   * @param length number of clusters; counts beyond it go to the map
   * @param limit what no count is incremented beyond; whoever tries is told
   */
  constructor(
    length: number,
    limit = Infinity,
    onOverflow: (cluster: number) => void = () => undefined,
  ) {
    this.#length = length;
    this.#limit = limit;
    this.#onOverflow = onOverflow;
    this.#bytes = new Uint8Array(new SharedArrayBuffer(Math.ceil(length / perByte)));
  }

  /** What `SharedOnes` on another thread looks at. */
  get shared(): SharedArrayBuffer {
    return this.#bytes.buffer;
  }

  /** The count of a cluster. */
  get(cluster: number): number {
    if (cluster >= this.#length) return this.#large.get(cluster) ?? 0;
    const count = (this.#bytes[Math.floor(cluster / perByte)] >> shift(cluster)) & 3;
    return count < overflow ? count : this.#large.get(cluster)!;
  }

  /** Whether the count of a cluster is 1. */
  isOne(cluster: number): boolean {
    return this.get(cluster) === 1;
  }

  /** Sets the count of a cluster. */
  set(cluster: number, count: number): void {
    if (cluster < this.#length) {
      const at = Math.floor(cluster / perByte);
      const rest = this.#bytes[at] & ~(3 << shift(cluster));
      this.#bytes[at] = rest | (Math.min(count, overflow) << shift(cluster));
      if (count < overflow) {
        if (this.#large.size > 0) this.#large.delete(cluster);
        return;
      }
    }
    this.#large.set(cluster, count);
  }

  /** Adds one to the counts of consecutive clusters. */
  increment(cluster: number, count: number): void {
    const end = cluster + count;
    let next = cluster;
    while (next < end && next % perByte !== 0) this.#incrementOne(next++);
    const bytes = this.#bytes;
    const wholeEnd = Math.floor(Math.min(end, this.#length) / perByte);
    for (let at = next / perByte; at < wholeEnd; at++, next += perByte) {
      if (bytes[at] === 0) bytes[at] = allOnes;
      else for (let part = 0; part < perByte; part++) this.#incrementOne(next + part);
    }
    while (next < end) this.#incrementOne(next++);
  }

  /** Whether every one of consecutive clusters has the count 1. */
  areAllOne(cluster: number, count: number): boolean {
    const inside = Math.max(0, Math.min(count, this.#length - cluster));
    if (!areOnes(this.#bytes, cluster, inside)) return false;
    for (let next = cluster + inside; next < cluster + count; next++) {
      if (!this.isOne(next)) return false;
    }
    return true;
  }

  #incrementOne(cluster: number): void {
    const count = this.get(cluster);
    if (count === this.#limit) this.#onOverflow(cluster);
    else this.set(cluster, count + 1);
  }

  /**
   * The clusters whose counts differ between this and another of the same length, in ascending
   * order. Counts up to the one last yielded may be changed meanwhile.
   */
  *differences(other: PackedCounts): Generator<number> {
    for (let at = 0; at < this.#bytes.length; at++) {
      const byte = this.#bytes[at];
      // A pair of set bits is a large count, whose value is in the map.
      if (byte === other.#bytes[at] && (byte & (byte >> 1) & allOnes) === 0) continue;
      const first = at * perByte;
      const end = Math.min(first + perByte, this.#length);
      for (let cluster = first; cluster < end; cluster++) {
        if (this.get(cluster) !== other.get(cluster)) yield cluster;
      }
    }
    const beyond = new Set([...this.#large.keys(), ...other.#large.keys()]);
    for (const cluster of [...beyond].sort((a, b) => a - b)) {
      if (cluster >= this.#length && this.get(cluster) !== other.get(cluster)) yield cluster;
    }
  }

  /** The first cluster from one on that has no count. */
  nextFree(from: number): number {
    let cluster = from;
    for (; this.get(cluster) > 0; cluster++) {
      if (cluster % perByte !== 0) continue;
      // Both bits of a pair are clear where there is no count.
      let at = cluster / perByte;
      while (at + 1 < this.#bytes.length && allUsed(this.#bytes[at])) at++;
      cluster = Math.max(cluster, at * perByte - 1);
    }
    return cluster;
  }

  /** The first cluster from one on, and before an end, that has a count; `end` if there is none. */
  nextUsed(from: number, end: number): number {
    for (let cluster = from; cluster < end; cluster++) {
      const at = cluster / perByte;
      // The last byte may end beyond the length, where counts stand in the map.
      const isWhole = Number.isInteger(at) && cluster + perByte <= this.#length;
      if (isWhole && this.#bytes[at] === 0) {
        cluster += perByte - 1;
      } else if (this.get(cluster) > 0) {
        return cluster;
      }
    }
    return end;
  }

  /** The highest cluster below an end that has a count other than zero, or -1. */
  highest(end = Infinity): number {
    let highest = -1;
    for (const [cluster, count] of this.#large) {
      if (count > 0 && cluster < end) highest = Math.max(highest, cluster);
    }
    for (let at = this.#bytes.length - 1; at >= 0; at--) {
      if (this.#bytes[at] === 0) continue;
      for (let cluster = at * perByte + perByte - 1; cluster >= at * perByte; cluster--) {
        if (cluster < Math.min(end, this.#length) && this.get(cluster) > 0)
          return Math.max(highest, cluster);
      }
    }
    return highest;
  }
}

/** The counts of a `PackedCounts` as another thread sees them: which of them are 1. */
export class SharedOnes {
  readonly #length: number;
  readonly #bytes: Uint8Array;

  /** @param length number of clusters; of others nothing is known, and none is 1 */
  constructor(shared: SharedArrayBuffer, length: number) {
    this.#bytes = new Uint8Array(shared);
    this.#length = length;
  }

  /** Whether the count of a cluster is 1. */
  isOne(cluster: number): boolean {
    return this.areAllOne(cluster, 1);
  }

  /** Whether every one of consecutive clusters has the count 1. */
  areAllOne(cluster: number, count: number): boolean {
    return cluster + count <= this.#length && areOnes(this.#bytes, cluster, count);
  }
}

/** Whether consecutive counts are 1. */
function areOnes(bytes: Uint8Array, cluster: number, count: number): boolean {
  const end = cluster + count;
  let next = cluster;
  for (; next < end && next % perByte !== 0; next++) if (!isOne(bytes, next)) return false;
  const wholeEnd = Math.floor(end / perByte);
  for (let at = next / perByte; at < wholeEnd; at++, next += perByte) {
    if (bytes[at] !== allOnes) return false;
  }
  for (; next < end; next++) if (!isOne(bytes, next)) return false;
  return true;
}

function isOne(bytes: Uint8Array, cluster: number): boolean {
  return ((bytes[Math.floor(cluster / perByte)] >> shift(cluster)) & 3) === 1;
}

/** Whether none of the four counts of a byte is zero. */
function allUsed(byte: number): boolean {
  return ((byte | (byte >> 1)) & allOnes) === allOnes;
}

function shift(cluster: number): number {
  return (cluster % perByte) * 2;
}
