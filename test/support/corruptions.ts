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

const notBySymptom: Exception = {
  why: 'the other tool closes the image under its own check at the first count it cannot read, and repairs nothing; here the counts are written anew',
  compared: 'nothing',
};
const sayingMore: Exception = {
  why: 'the other tool also says what its block layer thinks of the image',
  compared: 'counts',
};
const growing: Exception = {
  why: 'the other tool makes the file as long as a damaged pointer asks for; here it stays as it is',
  compared: 'exit code',
};
const claimed: Exception = {
  why: 'the other tool gives up because the new snapshot table would lie where the damaged one claims to be',
  compared: 'nothing',
};
const overlapping: Exception = {
  why: 'the other tool gives up because the damaged pointer seems to overlap what it writes; here the counts are written anew',
  compared: 'nothing',
};

const copied = 1n << 63n;
const compressed = 1n << 62n;
const kib = 1024;

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

  /** Sets the reference count, of any width, of a host cluster that the first block counts. */
  count(hostCluster: number, count: number): void {
    const block = this.refcountBlock(0);
    const bits = this.refcountBits;
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

function create(name: string, options: string, size: string, ...steps: CorruptionBase['steps']) {
  const words = ['create', '-q', '-f', 'qcow2', '-o', options, 'IMAGE', size];
  return { name, steps: [words, ...steps] };
}

const writes = ['write -P 0x11 0 32k', 'write -P 0x22 40k 4k'];
const plain = create('plain', 'cluster_size=4k', '128k', ...writes);
const old = create('old', 'cluster_size=4k,compat=0.10', '128k', ...writes);
const large = create('large', 'cluster_size=64k', '1M', 'write -P 0x33 0 256k');
/** Clusters of 512 bytes: many L2 tables and several refcount blocks. */
const small = create('small', 'cluster_size=512', '256k', 'write -P 0x44 0 200k');
const zeroes = create('zeroes', 'cluster_size=4k', '128k', 'write -P 0x11 0 16k', 'write -z 4k 4k');
const snapshots = create(
  'snapshots',
  'cluster_size=4k',
  '128k',
  ...writes,
  ['snapshot', '-c', 'first', 'IMAGE'],
  'write -P 0x55 4k 8k',
  ['snapshot', '-c', 'second', 'IMAGE'],
  'write -P 0x66 16k 4k',
);
const packed = create(
  'packed',
  'cluster_size=4k',
  '128k',
  'write -c -P 0x11 0 4k',
  'write -c -P 0x22 4k 4k',
  'write -c -P 0x33 8k 4k',
  'write -P 0x44 16k 4k',
);
const extended = create(
  'extended',
  'cluster_size=16k,extended_l2=on',
  '1M',
  'write -P 0x11 0 2k',
  'write -P 0x22 16k 16k',
  'write -z 64k 1k',
  'write -c -P 0x33 128k 16k',
);
const external = create('external', 'cluster_size=4k,data_file=external.data', '128k', ...writes);
const lazy = create('lazy', 'cluster_size=4k,lazy_refcounts=on', '128k', ...writes);
const bitmaps = create('bitmaps', 'cluster_size=4k', '128k', ...writes, [
  'bitmap',
  '--add',
  'IMAGE',
  'history',
]);

function ofWidth(bits: number): CorruptionBase {
  const name = `width${bits}`;
  return create(name, `cluster_size=4k,refcount_bits=${bits}`, '128k', ...writes);
}

const counts: readonly Corruption[] = [
  { name: 'nothing', base: plain, damage: () => undefined },
  {
    name: 'leaked clusters',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0n, image.entry(8 * kib));
      image.bytes.writeBigUInt64BE(0n, image.entry(16 * kib));
    },
  },
  {
    name: 'leaked clusters of an image of the old version',
    base: old,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0n, image.entry(8 * kib));
    },
  },
  {
    name: 'leak beyond the end of the file',
    base: plain,
    damage: (image) => {
      image.count(image.clusters + 3, 1);
    },
  },
  {
    name: 'count too high',
    base: plain,
    damage: (image) => {
      image.count(image.host(8 * kib), 3);
    },
  },
  {
    name: 'count too low in a shared cluster',
    base: snapshots,
    damage: (image) => {
      image.count(image.host(0), 1);
    },
  },
  {
    name: 'count too high and too low at once',
    base: snapshots,
    damage: (image) => {
      image.count(image.host(0), 1);
      image.count(image.host(24 * kib), 7);
      image.count(image.host(16 * kib), 2);
    },
  },
  {
    name: 'count of data zero',
    base: plain,
    damage: (image) => {
      image.count(image.host(8 * kib), 0);
      image.count(image.host(40 * kib), 0);
    },
  },
  {
    name: 'count of data zero, and leaks',
    base: large,
    damage: (image) => {
      image.count(image.host(0), 0);
      image.bytes.writeBigUInt64BE(0n, image.entry(64 * kib));
    },
  },
  {
    name: 'count of the header zero',
    base: plain,
    damage: (image) => {
      image.count(0, 0);
    },
  },
  {
    name: 'count of the L1 table zero',
    base: plain,
    damage: (image) => {
      image.count(image.l1Offset / image.clusterSize, 0);
    },
  },
  {
    name: 'count of an L2 table zero',
    base: plain,
    damage: (image) => {
      image.count(image.pointer(image.l1Offset) / image.clusterSize, 0);
    },
  },
  {
    name: 'count of the refcount block zero',
    base: plain,
    damage: (image) => {
      image.count(image.refcountBlock(0) / image.clusterSize, 0);
    },
  },
  {
    name: 'count of the refcount table too high',
    base: plain,
    damage: (image) => {
      image.count(image.refcountTableOffset / image.clusterSize, 2);
    },
  },
  {
    name: 'all counts zero',
    base: plain,
    damage: (image) => {
      image.bytes.fill(0, image.refcountBlock(0), image.refcountBlock(0) + image.clusterSize);
    },
  },
  {
    name: 'all counts 0xffff',
    base: plain,
    damage: (image) => {
      image.bytes.fill(0xff, image.refcountBlock(0), image.refcountBlock(0) + 128);
    },
  },
  {
    name: 'counts of compressed clusters too low',
    base: packed,
    damage: (image) => {
      const entry = image.value(image.entry(0));
      image.count(Number(entry & ((1n << 58n) - 1n)) / image.clusterSize, 1);
    },
  },
  ...[1, 2, 4, 8, 32, 64].flatMap((bits): Corruption[] => [
    {
      name: `count of data zero, ${bits} bits wide`,
      base: ofWidth(bits),
      damage: (image) => {
        image.count(image.host(8 * kib), 0);
      },
    },
    {
      name: `leak, ${bits} bits wide`,
      base: ofWidth(bits),
      damage: (image) => {
        image.bytes.writeBigUInt64BE(0n, image.entry(12 * kib));
      },
    },
  ]),
  {
    name: 'more references than one bit can count',
    base: ofWidth(1),
    damage: (image) => {
      image.bytes.writeBigUInt64BE(image.value(image.entry(0)), image.entry(4 * kib));
    },
  },
];

const refcountStructures: readonly Corruption[] = [
  {
    name: 'refcount block missing',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0n, image.refcountTableOffset);
    },
  },
  {
    name: 'one of several refcount blocks missing',
    base: small,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0n, image.refcountTableOffset + 8);
    },
  },
  {
    name: 'refcount block misaligned',
    base: plain,
    damage: (image) => {
      image.change(image.refcountTableOffset, (entry) => entry + 512n);
    },
    exceptions: { check: sayingMore, leaks: notBySymptom, all: notBySymptom },
  },
  {
    name: 'refcount block beyond the end of the file',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x1000000n, image.refcountTableOffset);
    },
    exceptions: { all: growing },
  },
  {
    name: 'a second refcount block beyond the end of the file',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x1000000n, image.refcountTableOffset + 8);
    },
    exceptions: { all: growing },
  },
  {
    name: 'refcount block that two entries point at',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(
        image.value(image.refcountTableOffset),
        image.refcountTableOffset + 8,
      );
    },
  },
  {
    name: 'refcount block on data',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(
        BigInt(image.host(8 * kib) * image.clusterSize),
        image.refcountTableOffset,
      );
    },
  },
  {
    name: 'refcount block on the L1 table',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(BigInt(image.l1Offset), image.refcountTableOffset);
    },
  },
  {
    name: 'reserved bits in a refcount table entry',
    base: plain,
    damage: (image) => {
      image.change(image.refcountTableOffset, (entry) => entry | 4n);
    },
    exceptions: { all: overlapping },
  },
  {
    name: 'refcount table in the header’s cluster',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0n, 48);
    },
    exceptions: { all: growing },
  },
  {
    name: 'refcount table on data',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(BigInt(image.host(8 * kib) * image.clusterSize), 48);
    },
  },
  {
    name: 'refcount table beyond the end of the file',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x1000000n, 48);
    },
  },
  {
    name: 'refcount table of zeroes, with snapshots',
    base: snapshots,
    damage: (image) => {
      image.bytes.fill(0, image.refcountTableOffset, image.refcountTableOffset + 4096);
    },
  },
  {
    name: 'refcount table of zeroes, with compressed clusters',
    base: packed,
    damage: (image) => {
      image.bytes.fill(0, image.refcountTableOffset, image.refcountTableOffset + 4096);
    },
  },
  {
    name: 'refcount table of zeroes, with bitmaps',
    base: bitmaps,
    damage: (image) => {
      image.bytes.fill(0, image.refcountTableOffset, image.refcountTableOffset + 4096);
    },
    exceptions: { leaks: sayingMore },
  },
  {
    name: 'refcount table of zeroes, with many blocks',
    base: small,
    damage: (image) => {
      image.bytes.fill(0, image.refcountTableOffset, image.refcountTableOffset + 512);
    },
  },
];

const flags: readonly Corruption[] = [
  {
    name: 'COPIED missing on data',
    base: plain,
    damage: (image) => {
      image.change(image.entry(4 * kib), (entry) => entry & ~copied);
    },
  },
  {
    name: 'COPIED on data that a snapshot shares',
    base: snapshots,
    damage: (image) => {
      image.change(image.entry(0), (entry) => entry | copied);
    },
  },
  {
    name: 'COPIED missing on an L2 table',
    base: plain,
    damage: (image) => {
      image.change(image.l1Offset, (entry) => entry & ~copied);
    },
  },
  {
    name: 'COPIED on an L2 table that a snapshot shares',
    base: create('shared', 'cluster_size=4k', '128k', ...writes, [
      'snapshot',
      '-c',
      'first',
      'IMAGE',
    ]),
    damage: (image) => {
      image.change(image.l1Offset, (entry) => entry | copied);
    },
  },
  {
    name: 'COPIED on a compressed cluster',
    base: packed,
    damage: (image) => {
      image.change(image.entry(4 * kib), (entry) => entry | copied);
    },
  },
  {
    name: 'COPIED missing, and leaks',
    base: plain,
    damage: (image) => {
      image.change(image.entry(4 * kib), (entry) => entry & ~copied);
      image.bytes.writeBigUInt64BE(0n, image.entry(12 * kib));
    },
  },
  {
    name: 'COPIED missing with an external data file',
    base: external,
    damage: (image) => {
      image.change(image.entry(4 * kib), (entry) => entry & ~copied);
    },
  },
];

const entries: readonly Corruption[] = [
  {
    name: 'two entries with one cluster',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(image.value(image.entry(4 * kib)), image.entry(8 * kib));
    },
  },
  {
    name: 'L2 entry misaligned',
    base: plain,
    damage: (image) => {
      image.change(image.entry(4 * kib), (entry) => entry + 512n);
    },
  },
  {
    name: 'L2 entry of a zero cluster misaligned',
    base: zeroes,
    damage: (image) => {
      image.change(image.entry(8 * kib), (entry) => (entry + 512n) | 1n);
    },
  },
  {
    name: 'L2 entry far beyond the end of the file',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(copied | 0x10000000n, image.entry(4 * kib));
    },
  },
  {
    name: 'L2 entry where the file ends',
    base: plain,
    damage: (image) => {
      const end = BigInt(image.clusters * image.clusterSize);
      image.bytes.writeBigUInt64BE(copied | end, image.entry(4 * kib));
    },
  },
  {
    name: 'L2 entry on the header extension’s cluster',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(copied | 0x1000n, image.entry(4 * kib));
    },
  },
  {
    name: 'L2 entry on its own table',
    base: plain,
    damage: (image) => {
      const table = BigInt(image.pointer(image.l1Offset));
      image.bytes.writeBigUInt64BE(copied | table, image.entry(4 * kib));
    },
    touchesGuestData: true,
  },
  {
    name: 'L2 entry on the refcount block',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(copied | BigInt(image.refcountBlock(0)), image.entry(4 * kib));
    },
  },
  {
    name: 'reserved bits in an L2 entry',
    base: plain,
    damage: (image) => {
      image.change(image.entry(4 * kib), (entry) => entry | (1n << 60n) | 8n);
    },
  },
  {
    name: 'compressed entry beyond the end of the file',
    base: packed,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(compressed | 0x10000000n, image.entry(4 * kib));
    },
  },
  {
    name: 'compressed entry with an external data file',
    base: external,
    damage: (image) => {
      image.change(image.entry(4 * kib), (entry) => (entry & ~copied) | compressed);
    },
  },
  {
    name: 'L1 entry misaligned',
    base: plain,
    damage: (image) => {
      image.change(image.l1Offset, (entry) => entry + 512n);
    },
  },
  {
    name: 'L1 entry beyond the end of the file',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(copied | 0x10000000n, image.l1Offset);
    },
  },
  {
    name: 'reserved bits in an L1 entry',
    base: plain,
    damage: (image) => {
      image.change(image.l1Offset, (entry) => entry | (1n << 60n));
    },
  },
  {
    name: 'two L1 entries with one table',
    base: small,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(image.value(image.l1Offset), image.l1Offset + 8);
    },
  },
  {
    name: 'L1 entry on data',
    base: small,
    damage: (image) => {
      const data = BigInt(image.host(64 * kib) * image.clusterSize);
      image.bytes.writeBigUInt64BE(copied | data, image.l1Offset);
    },
  },
  {
    name: 'L1 entry on the refcount table',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(copied | BigInt(image.refcountTableOffset), image.l1Offset);
    },
  },
];

const subclusters: readonly Corruption[] = [
  {
    name: 'subclusters both allocated and zero',
    base: extended,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x00000001_00000001n, image.entry(0) + 8);
    },
  },
  {
    name: 'subclusters allocated without a cluster',
    base: extended,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x1n, image.entry(256 * kib) + 8);
    },
  },
  {
    name: 'compressed entry with subclusters',
    base: extended,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x1n, image.entry(128 * kib) + 8);
    },
  },
  {
    name: 'extended entry with the zero flag of standard ones',
    base: extended,
    damage: (image) => {
      image.change(image.entry(16 * kib), (entry) => entry | 1n);
    },
  },
  {
    name: 'extended entry misaligned, with data',
    base: extended,
    damage: (image) => {
      image.change(image.entry(16 * kib), (entry) => entry + 512n);
    },
  },
  {
    name: 'extended entry misaligned, without data',
    base: extended,
    damage: (image) => {
      image.change(image.entry(16 * kib), (entry) => entry + 512n);
      image.bytes.writeBigUInt64BE(0xffffffff_00000000n, image.entry(16 * kib) + 8);
    },
  },
];

const tables: readonly Corruption[] = [
  {
    name: 'snapshot’s L1 table misaligned',
    base: snapshots,
    damage: (image) => {
      image.change(image.snapshot(0), (offset) => offset + 512n);
    },
  },
  {
    name: 'snapshot’s L1 table too large',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeUInt32BE(0x1000000, image.snapshot(1) + 8);
    },
  },
  {
    name: 'snapshot’s L1 table beyond the end of the file',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x10000000n, image.snapshot(0));
    },
  },
  {
    name: 'snapshot with too much extra data',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeUInt32BE(2000, image.snapshot(1) + 36);
    },
  },
  {
    name: 'snapshot with too little extra data',
    base: snapshots,
    damage: (image) => {
      const at = image.snapshot(0);
      const extra = image.bytes.readUInt32BE(at + 36);
      const names = image.bytes.readUInt16BE(at + 12) + image.bytes.readUInt16BE(at + 14);
      // The names move up, and what they leave behind belongs to the entry's name.
      image.bytes.copyWithin(at + 48, at + 40 + extra, at + 40 + extra + names);
      image.bytes.writeUInt32BE(8, at + 36);
      image.bytes.writeUInt16BE(image.bytes.readUInt16BE(at + 14) + extra - 8, at + 14);
      image.bytes.fill(0x78, at + 48 + names, at + 40 + extra + names);
    },
  },
  {
    name: 'more snapshots counted than there are',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeUInt32BE(4, 60);
    },
  },
  {
    name: 'far too many snapshots counted',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeUInt32BE(70000, 60);
    },
    exceptions: { all: claimed },
  },
  {
    name: 'snapshot table misaligned',
    base: snapshots,
    damage: (image) => {
      image.change(64, (offset) => offset + 8n);
    },
  },
  {
    name: 'snapshot table beyond the end of the file',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x10000000n, 64);
    },
    exceptions: { all: sayingMore },
  },
  {
    name: 'fewer snapshots counted than there are',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeUInt32BE(1, 60);
    },
  },
  {
    name: 'bitmap table with reserved bits',
    base: bitmaps,
    damage: (image) => {
      image.change(image.pointer(image.bitmapDirectory), (entry) => entry | 4n);
    },
  },
  {
    name: 'bitmap table misaligned',
    base: bitmaps,
    damage: (image) => {
      image.change(image.bitmapDirectory, (offset) => offset + 512n);
    },
  },
  {
    name: 'bitmap table leaked: the autoclear bit is gone',
    base: bitmaps,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0n, 88);
    },
    exceptions: { check: sayingMore, leaks: sayingMore, all: sayingMore },
  },
];

const headers: readonly Corruption[] = [
  {
    name: 'dirty bit on a sound image',
    base: lazy,
    damage: (image) => {
      image.setFeatureBit(72, 0);
    },
  },
  {
    name: 'dirty bit and counts of data zero',
    base: lazy,
    damage: (image) => {
      image.setFeatureBit(72, 0);
      image.count(image.host(8 * kib), 0);
    },
  },
  {
    name: 'dirty bit and leaks',
    base: lazy,
    damage: (image) => {
      image.setFeatureBit(72, 0);
      image.bytes.writeBigUInt64BE(0n, image.entry(8 * kib));
    },
  },
  {
    name: 'corrupt bit on a sound image',
    base: plain,
    damage: (image) => {
      image.setFeatureBit(72, 1);
    },
  },
  {
    name: 'corrupt bit and leaks',
    base: plain,
    damage: (image) => {
      image.setFeatureBit(72, 1);
      image.bytes.writeBigUInt64BE(0n, image.entry(8 * kib));
    },
  },
  {
    name: 'corrupt bit and an entry that cannot be repaired',
    base: plain,
    damage: (image) => {
      image.setFeatureBit(72, 1);
      image.change(image.entry(4 * kib), (entry) => entry + 512n);
    },
  },
  {
    name: 'file cut in the middle of its last cluster',
    base: plain,
    damage: (image) => {
      image.cut(image.bytes.length - 1536);
    },
  },
  {
    name: 'file cut before its last clusters',
    base: plain,
    damage: (image) => {
      image.cut(image.bytes.length - 3 * image.clusterSize);
    },
  },
];

/** Every corruption. */
export const corruptions: readonly Corruption[] = [
  ...counts,
  ...refcountStructures,
  ...flags,
  ...entries,
  ...subclusters,
  ...tables,
  ...headers,
];
