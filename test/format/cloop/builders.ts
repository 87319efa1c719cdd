/** Compressed loop devices by hand: no tool here makes them. */
import { deflateSync } from 'node:zlib';

const script =
  '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n';

/** Bytes before the table of offsets. */
export const headerBytes = 136;

/** A file. @param gap bytes between the blocks */
export function cloop(blocks: readonly Buffer[], blockBytes: number, gap = 0): Buffer {
  const stored = blocks.map((block) => Buffer.concat([deflateSync(block), Buffer.alloc(gap, 9)]));
  const header = Buffer.alloc(headerBytes);
  header.write(script);
  header.writeUInt32BE(blockBytes, 128);
  header.writeUInt32BE(blocks.length, 132);
  const table = Buffer.alloc((blocks.length + 1) * 8);
  let next = headerBytes + table.length;
  for (const [index, { length }] of stored.entries()) {
    table.writeBigUInt64BE(BigInt(next), index * 8);
    next += length;
  }
  table.writeBigUInt64BE(BigInt(next), blocks.length * 8);
  return Buffer.concat([header, table, ...stored]);
}
