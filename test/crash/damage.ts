/** Damage that a repair puts right completely, done to the bytes of a healthy image. */
import { DamagedImage, copied } from '../support/damaged-image.js';
import type { Random } from '../stress/random.js';

/** Damages the bytes of an image; gives the damaged ones. */
export type Damage = (image: Uint8Array, random: Random) => Uint8Array;

function damaging(change: (image: DamagedImage, random: Random) => void): Damage {
  return (bytes, random) => {
    const image = new DamagedImage('', Buffer.from(bytes));
    change(image, random);
    return new Uint8Array(image.bytes);
  };
}

/** Guest offsets of the disk's clusters that have data of their own. */
function written(image: DamagedImage): number[] {
  const size = Number(image.value(24));
  const offsets: number[] = [];
  for (let offset = 0; offset < size; offset += image.clusterSize) {
    const reach = (image.clusterSize / 8) * image.clusterSize;
    const hasTable = image.pointer(image.l1Offset + Math.floor(offset / reach) * 8) !== 0;
    if (hasTable && image.host(offset) !== 0) offsets.push(offset);
  }
  return offsets;
}

/** Some counts too high, some too low but not zero, some leaked clusters, some wrong flags. */
export const wrongCounts = damaging((image, random) => {
  const offsets = written(image);
  const clusters = offsets.map((offset) => image.host(offset));
  for (let change = 0; change < 40; change++)
    image.count(random.pick(clusters), random.pick([1, 3, 4]));
  for (let change = 0; change < 12; change++) {
    image.change(image.entry(random.pick(offsets)), (value) => value | copied);
  }
  for (let leaked = 0; leaked < 3; leaked++) {
    image.count(image.clusters, 1 + random.below(2));
    image.bytes = Buffer.concat([image.bytes, Buffer.alloc(image.clusterSize, 0xaa)]);
  }
});

/** Counts that a lazy image had not written yet, behind the dirty bit. */
export const unwrittenCounts = damaging((image, random) => {
  image.setFeatureBit(72, 0);
  image.setFeatureBit(80, 0);
  for (const offset of written(image)) if (random.chance(0.4)) image.count(image.host(offset), 0);
});

/** The refcount table or a block is gone, or points to nowhere. */
export const lostStructures = damaging((image, random) => {
  const table = image.refcountTableOffset;
  const kind = random.below(3);
  if (kind === 0) image.bytes.fill(0, table, table + image.clusterSize);
  else if (kind === 1) image.change(table, () => BigInt(image.refcountBlock(0)) | 0x200n);
  else image.bytes.fill(0, image.refcountBlock(0), image.refcountBlock(0) + image.clusterSize);
});
