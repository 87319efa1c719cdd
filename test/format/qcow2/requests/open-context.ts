/** What the parts of a queue work with, over a new image in memory: for tests of one part by itself. */
import { UnflushedData } from '../../../../src/engine/flush/unflushed.js';
import { QueueCounters } from '../../../../src/engine/queues/counters.js';
import { takeQueueLine } from '../../../../src/engine/queues/queue-line.js';
import { Arena } from '../../../../src/engine/space/arena.js';
import type { Qcow2Image } from '../../../../src/format/qcow2/image.js';
import { Payload } from '../../../../src/format/encryption/payload.js';
import type { QueueContext } from '../../../../src/format/qcow2/requests/queue-context.js';
import { formatFile } from '../../../../src/image/graph/create.js';
import { allocateSharedState } from '../../../../src/image/graph/shared-state.js';
import { MemoryFile } from '../../../../src/storage/memory/memory-file.js';
import { openOver } from '../../../crash/open-over.js';

/** Opens a queue's parts over a new disk of `size` bytes with clusters of 64 KiB. */
export async function openContext(size: number): Promise<QueueContext> {
  const file = new MemoryFile('disk');
  await formatFile(file, { format: 'qcow2', size });
  let format: Qcow2Image | undefined;
  await openOver({ file, dataFile: undefined, backing: undefined }, (opened) => (format = opened));
  const { metadata } = format!;
  const line = takeQueueLine(metadata.control);
  return {
    metadata,
    file,
    payload: new Payload(file, 65_536),
    externalData: false,
    rawExternalData: false,
    backing: undefined,
    version: 3,
    line,
    arena: new Arena({
      memory: metadata.control,
      line,
      clusterSize: metadata.geometry.clusterSize,
      diskSize: size,
      reserve: (wanted) => metadata.allocator.reserve(wanted),
    }),
    turns: undefined,
    unflushed: new UnflushedData(metadata.control, line),
    counters: QueueCounters.take(allocateSharedState().counters),
  };
}
