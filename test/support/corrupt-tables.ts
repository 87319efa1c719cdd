/** Corruptions of the tables that map the disk, of snapshots, bitmaps, and of the header. */
import {
  type Corruption,
  sayingMore,
  claimed,
  copied,
  compressed,
  kib,
  create,
  plain,
  writes,
  small,
  zeroes,
  snapshots,
  packed,
  extended,
  external,
  lazy,
  bitmaps,
} from './damaged-image.js';

/** COPIED flags that are wrong. */
export const corruptFlags: readonly Corruption[] = [
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

/** L1 and L2 entries that are wrong. */
export const corruptEntries: readonly Corruption[] = [
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

/** Extended entries that are wrong. */
export const corruptSubclusters: readonly Corruption[] = [
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

/** Tables of snapshots and bitmaps that are wrong. */
export const corruptTables: readonly Corruption[] = [
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
    name: 'snapshot’s L1 table farther off than numbers reach',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(1n << 53n, image.snapshot(0));
    },
  },
  {
    name: 'snapshot’s L1 table misaligned, farther off than numbers reach',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeBigUInt64BE((1n << 62n) + 512n, image.snapshot(0));
    },
  },
  {
    name: 'snapshot’s L1 table farther off than any file reaches',
    base: snapshots,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x7ffffffffffff000n, image.snapshot(0));
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

/** Feature bits and files that are cut off. */
export const corruptHeaders: readonly Corruption[] = [
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
    name: 'file cut in the middle of a run of data clusters',
    base: plain,
    damage: (image) => {
      image.cut(image.host(20 * kib) * image.clusterSize + 1536);
      // The run is to end one cluster further.
      image.bytes.writeBigUInt64BE(0n, image.entry(28 * kib));
    },
  },
  {
    name: 'an L2 table beyond what can be addressed',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x80a49ea5ca747000n, image.l1Offset);
    },
  },
  {
    name: 'COPIED on a compressed cluster of an image with a data file',
    base: external,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0xc000000000005000n, image.entry(4 * kib));
    },
  },
  {
    name: 'a disk that ends in the midst of a sector',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(128n * 1024n + 2n, 24);
    },
  },
  {
    name: 'snapshot table beyond every file, of no snapshots',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x00fffffffffff000n, 64);
    },
  },
  {
    name: 'snapshot table misaligned, of no snapshots',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(512n, 64);
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
