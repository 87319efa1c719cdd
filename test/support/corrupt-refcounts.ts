/** Corruptions of reference counts and of the structures that hold them. */
import {
  type Corruption,
  notBySymptom,
  sayingMore,
  growing,
  overlapping,
  kib,
  plain,
  old,
  large,
  small,
  snapshots,
  packed,
  bitmaps,
  ofWidth,
} from './damaged-image.js';

/** Reference counts that are wrong. */
export const corruptCounts: readonly Corruption[] = [
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

/** Refcount tables and blocks that are unusable. */
export const corruptRefcountStructures: readonly Corruption[] = [
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
    name: 'refcount table beyond what can be addressed',
    base: plain,
    damage: (image) => {
      image.bytes.writeBigUInt64BE(0x00fffffffffff000n, 48);
    },
  },
  {
    name: 'counts of 64 bits beyond numbers',
    base: ofWidth(64),
    damage: (image) => {
      for (const cluster of [2, image.host(0), image.host(8 * kib)]) {
        image.bytes.fill(
          0xff,
          image.refcountBlock(0) + 8 * cluster,
          image.refcountBlock(0) + 8 * cluster + 8,
        );
      }
    },
  },
  {
    name: 'refcount table of no clusters',
    base: plain,
    damage: (image) => {
      image.bytes.writeUInt32BE(0, 56);
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
