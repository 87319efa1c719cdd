/**
 * Hand-made corruptions: small images made by the real tools, each with a few bytes changed. Knows
 * just enough of the format for that, and shares nothing with the engine under test.
 */
import { Patch } from '../../fixtures/patch.js';

/** How an undamaged image is made: commands of qemu-img and, between them, of qemu-io. */
export interface CorruptionBase {
  readonly name: string;
  /** `img` words, in which IMAGE stands for the image, or one qemu-io command. */
  readonly steps: readonly (readonly string[] | string)[];
}

/** An image and what is changed in it. */
export interface Corruption {
  readonly name: string;
  readonly base: CorruptionBase;
  readonly damage: (image: DamagedImage) => void;
  /** What of the real tool's behaviour is not matched, by run, and why. */
  readonly exceptions?: Readonly<Partial<Record<Run, Exception>>>;
  /** Whether the guest reads metadata as its data, so that a repair of the one changes the other. */
  readonly touchesGuestData?: boolean;
}

/** A way of running `check`: alone, with `-r leaks`, with `-r all`. */
export type Run = 'check' | 'leaks' | 'all';

/** What is not matched. */
export interface Exception {
  readonly why: string;
  /** What is compared nevertheless: `counts` is all that goes to standard output, and the exit code. */
  readonly compared: 'counts' | 'exit code' | 'nothing';
}

export const notBySymptom: Exception = {
  why: 'the other tool closes the image under its own check at the first count it cannot read, and repairs nothing; here the counts are written anew',
  compared: 'nothing',
};
export const sayingMore: Exception = {
  why: 'the other tool also says what its block layer thinks of the image',
  compared: 'counts',
};
export const growing: Exception = {
  why: 'the other tool makes the file as long as a damaged pointer asks for; here it stays as it is',
  compared: 'exit code',
};
export const claimed: Exception = {
  why: 'the other tool gives up because the new snapshot table would lie where the damaged one claims to be',
  compared: 'nothing',
};
export const overlapping: Exception = {
  why: 'the other tool gives up because the damaged pointer seems to overlap what it writes; here the counts are written anew',
  compared: 'nothing',
};

export const copied = 1n << 63n;
export const compressed = 1n << 62n;
export const kib = 1024;

/** The bytes of an image to be damaged. */
export class DamagedImage extends Patch {
  get refcountBits(): number {
    return this.bytes.readUInt32BE(4) === 2 ? 16 : 2 ** this.bytes.readUInt32BE(96);
  }

  get clusters(): number {
    return Math.ceil(this.bytes.length / this.clusterSize);
  }

  get isExtended(): boolean {
    return (this.bytes.readUInt32BE(76) & 16) !== 0;
  }

  /** Host offset of a refcount block. */
  refcountBlock(index: number): number {
    return this.pointer(this.refcountTableOffset + index * 8);
  }

  pointer(offset: number): number {
    return Number(this.bytes.readBigUInt64BE(offset) & 0x00fffffffffffe00n);
  }

  /** Sets the reference count, of any width, of a host cluster for which there is a block. */
  count(cluster: number, count: number): void {
    const bits = this.refcountBits;
    const perBlock = (this.clusterSize * 8) / bits;
    const block = this.refcountBlock(Math.floor(cluster / perBlock));
    const hostCluster = cluster % perBlock;
    if (bits >= 8) {
      const at = block + (hostCluster * bits) / 8;
      this.bytes.fill(0, at, at + bits / 8);
      if (bits === 8) this.bytes.writeUInt8(count, at);
      else this.bytes.writeUInt16BE(count, at + bits / 8 - 2);
    } else {
      const at = block + Math.floor((hostCluster * bits) / 8);
      const shift = (hostCluster * bits) % 8;
      const mask = (2 ** bits - 1) << shift;
      this.bytes[at] = (this.bytes[at] & ~mask) | (count << shift);
    }
  }

  /** File offset of the L2 entry of a guest offset, standard or extended. */
  entry(guestOffset: number): number {
    const size = this.isExtended ? 16 : 8;
    const perTable = this.clusterSize / size;
    const cluster = Math.floor(guestOffset / this.clusterSize);
    const table = this.pointer(this.l1Offset + Math.floor(cluster / perTable) * 8);
    return table + (cluster % perTable) * size;
  }

  value(offset: number): bigint {
    return this.bytes.readBigUInt64BE(offset);
  }

  /** Host cluster that a guest offset is mapped to. */
  host(guestOffset: number): number {
    return this.pointer(this.entry(guestOffset)) / this.clusterSize;
  }

  /** File offset of the n-th entry of the snapshot table. */
  snapshot(index: number): number {
    let at = this.snapshotTableOffset;
    for (let skip = index; skip > 0; skip--) {
      const extra = this.bytes.readUInt32BE(at + 36);
      const names = this.bytes.readUInt16BE(at + 12) + this.bytes.readUInt16BE(at + 14);
      at += Math.ceil((40 + extra + names) / 8) * 8;
    }
    return at;
  }

  /** File offset of the bitmap directory. */
  get bitmapDirectory(): number {
    return this.pointer(this.extensionOffset(0x23852875) + 8 + 16);
  }
}

export function create(
  name: string,
  options: string,
  size: string,
  ...steps: CorruptionBase['steps']
) {
  const words = ['create', '-q', '-f', 'qcow2', '-o', options, 'IMAGE', size];
  return { name, steps: [words, ...steps] };
}

export const writes = ['write -P 0x11 0 32k', 'write -P 0x22 40k 4k'];
export const plain = create('plain', 'cluster_size=4k', '128k', ...writes);
export const old = create('old', 'cluster_size=4k,compat=0.10', '128k', ...writes);
export const large = create('large', 'cluster_size=64k', '1M', 'write -P 0x33 0 256k');
/** Clusters of 512 bytes: many L2 tables and several refcount blocks. */
export const small = create('small', 'cluster_size=512', '256k', 'write -P 0x44 0 200k');
export const zeroes = create(
  'zeroes',
  'cluster_size=4k',
  '128k',
  'write -P 0x11 0 16k',
  'write -z 4k 4k',
);
export const snapshots = create(
  'snapshots',
  'cluster_size=4k',
  '128k',
  ...writes,
  ['snapshot', '-c', 'first', 'IMAGE'],
  'write -P 0x55 4k 8k',
  ['snapshot', '-c', 'second', 'IMAGE'],
  'write -P 0x66 16k 4k',
);
export const packed = create(
  'packed',
  'cluster_size=4k',
  '128k',
  'write -c -P 0x11 0 4k',
  'write -c -P 0x22 4k 4k',
  'write -c -P 0x33 8k 4k',
  'write -P 0x44 16k 4k',
);
export const extended = create(
  'extended',
  'cluster_size=16k,extended_l2=on',
  '1M',
  'write -P 0x11 0 2k',
  'write -P 0x22 16k 16k',
  'write -z 64k 1k',
  'write -c -P 0x33 128k 16k',
);
export const external = create(
  'external',
  'cluster_size=4k,data_file=external.data',
  '128k',
  ...writes,
);
export const lazy = create('lazy', 'cluster_size=4k,lazy_refcounts=on', '128k', ...writes);
export const bitmaps = create('bitmaps', 'cluster_size=4k', '128k', ...writes, [
  'bitmap',
  '--add',
  'IMAGE',
  'history',
]);

export function ofWidth(bits: number): CorruptionBase {
  const name = `width${bits}`;
  return create(name, `cluster_size=4k,refcount_bits=${bits}`, '128k', ...writes);
}
