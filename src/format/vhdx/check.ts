/** Checking a VHDX image: whether its log has been replayed, and its blocks lie within the file. */
import type { StorageFile } from '../../storage/storage.js';
import type { CheckOptions, CheckReport } from '../check.js';
import { CheckTally } from '../mapped/check-tally.js';
import { UsedClusters } from '../mapped/used-clusters.js';
import { encodeGuid } from './guid.js';
import { renewVhdxHeaders, vhdxAlignment } from './header.js';
import type { GrowingVhdxLayout } from './mapping.js';
import { readVhdxLayout } from './open.js';
import { bytesOfRange } from './replayed-ranges.js';

const explanations = {
  log: 'The program that wrote to the image last did not close it: changes wait in its log. Here they are read as if they were in place; a program that does not know the log would damage the image, and -r all puts them there.',
  shared:
    'Two blocks lie at one place: at least one of them reads as what the other holds, and writing to one changes both.',
  block:
    'A block is said to lie where it cannot be, as if the file had been cut off: data of that part of the disk are lost.',
} as const;

/** Checks an image, as it is once its log has been replayed; any repair replays it. */
export async function checkVhdx(file: StorageFile, options: CheckOptions): Promise<CheckReport> {
  const { filename } = file;
  const tally = new CheckTally(explanations, options.onFinding);
  const fileLength = await file.size();
  // No file has more places than are kept.
  const used = UsedClusters.of(Math.ceil(fileLength / vhdxAlignment))!;
  const layout = await readVhdxLayout(
    file,
    (why) => {
      options.signal?.throwIfAborted();
      tally.corruption('block', why);
    },
    (entry, { offset, length }) => {
      let isFree = true;
      // What lies where the file will have grown is looked at once its log has been replayed.
      const end = Math.min(offset + length, fileLength);
      for (let at = offset; at < end; at += vhdxAlignment) {
        isFree = used.take(at / vhdxAlignment) && isFree;
      }
      if (isFree) return;
      const why = `VHDX BAT entry ${entry} offset ${offset} is where another block lies`;
      tally.corruption('shared', why);
    },
  );
  if (layout.replayed !== undefined) {
    const what = 'image was not closed correctly, and its log needs to be replayed';
    if (options.repair === undefined) tally.corruption('log', `ERROR ${what}`);
    else {
      tally.repair('log', `Repairing ${what}`);
      await replayLog(file, layout);
    }
  }
  return tally.report(filename, 'vhdx');
}

/**
 * Writes what the log has to its place. The headers say that it is done once all of it is durable: until
 * then the log holds, and can be replayed again.
 */
async function replayLog(
  file: StorageFile,
  { header, replayed, loggedLength = 0 }: GrowingVhdxLayout,
): Promise<void> {
  if (replayed === undefined) return;
  const length = await file.size();
  if (loggedLength > length) await file.truncate(loggedLength);
  for (const [range, start] of replayed.starts.entries()) {
    const bytes = bytesOfRange(replayed, range, start);
    const end = replayed.ends[range];
    if (bytes !== undefined) await file.write(bytes.subarray(0, end - start), start);
    // What the file has just grown by is zeroes.
    else if (start < length) await file.writeZeroes(start, Math.min(end, length) - start, false);
  }
  await file.flush();
  await renewVhdxHeaders(file, header, encodeGuid(header.dataWriteId));
}
