/** Parts of the engine by themselves: what one of their steps costs, with nothing transferred. */
import { randomFillSync } from 'node:crypto';
import { SliceCache, allocateSliceCache } from '../../src/engine/cache/slice-cache.js';
import { Geometry, asGuestOffset, asHostOffset } from '../../src/format/qcow2/layout/geometry.js';
import { L2EntryView } from '../../src/format/qcow2/layout/l2-entry.js';
import { ReadPlanner, Run } from '../../src/format/qcow2/layout/plan.js';
import type { Image } from '../../src/image/api/image.js';
import { formatFile } from '../../src/image/graph/create.js';
import { openImageOn } from '../../src/image/graph/open.js';
import type { CodecName } from '../../src/native/codec.js';
import { codecFor } from '../../src/native/codecs.js';
import { MemoryFile } from '../../src/storage/memory/memory-file.js';
import { NoTransfer } from '../no-transfer.js';

/** A step that is done over and over. */
export interface MicroBenchmark {
  readonly name: string;
  /** Steps of a call of `run`. */
  readonly steps: number;
  /** Does them. */
  readonly run: () => Promise<unknown> | undefined;
}

const clusterSize = 65536;
const blockBytes = 4096;

/** Requests that find their slice cached and their cluster mapped, from the call to the completion. */
async function hotPath(): Promise<MicroBenchmark[]> {
  const size = 64 * clusterSize;
  const memory = new MemoryFile('disk.qcow2');
  await formatFile(memory, { format: 'qcow2', size });
  const file = NoTransfer.over(memory);
  const image = await openImageOn(file, { format: 'qcow2' });
  await image.write(new Uint8Array(size).fill(1), 0);
  await image.flush();
  file.idle = true;
  const atDepth = (depth: number, kind: 'read' | 'write'): MicroBenchmark => {
    const buffers = Array.from({ length: depth }, () => new Uint8Array(blockBytes));
    const steps = 1024;
    return {
      name: `hot path: ${kind} of 4 KiB, depth ${depth}`,
      steps,
      run: () =>
        Promise.all(
          buffers.map((buffer, lane) => requests(image, kind, buffer, lane, steps / depth)),
        ),
    };
  };
  return [1, 64].flatMap((depth) => [atDepth(depth, 'read'), atDepth(depth, 'write')]);
}

async function requests(
  image: Image,
  kind: 'read' | 'write',
  buffer: Uint8Array,
  lane: number,
  count: number,
): Promise<void> {
  const blocks = image.size / blockBytes;
  for (let request = 0; request < count; request++) {
    const place = ((lane * 31 + request * 104_729) % blocks) * blockBytes;
    if (kind === 'read') await image.read(buffer, place);
    else await image.write(buffer, place);
  }
}

/** Finding how guest bytes are stored, from the entries of a slice. */
function planning(): MicroBenchmark[] {
  return [false, true].map((extendedL2) => {
    const geometry = new Geometry({ clusterBits: 16, refcountOrder: 4, extendedL2 });
    const entries = new L2EntryView(geometry, false);
    const view = new DataView(new ArrayBuffer(geometry.sliceSize));
    const count = geometry.l2EntriesPerSlice;
    for (let entry = 0; entry < count; entry++) {
      const at = entry * geometry.l2EntrySize;
      // Every fourth cluster lies elsewhere.
      const place = asHostOffset((entry + Math.floor(entry / 4) + 10) * clusterSize);
      if (extendedL2) entries.setSubclusters(view, at, place, 0xffffffff);
      else entries.setNormal(view, at, place);
    }
    const planner = new ReadPlanner(geometry, entries);
    const run = new Run();
    return {
      name: `planning: ${extendedL2 ? 'extended' : 'standard'} entries`,
      steps: count,
      run: () => {
        for (let entry = 0; entry < count; entry++) {
          planner.plan(view, 0, asGuestOffset(entry * clusterSize), 4 * clusterSize, run);
        }
        return undefined;
      },
    };
  });
}

/** Looking up, locking and pinning slices that are cached. */
async function sliceCache(): Promise<MicroBenchmark[]> {
  const slices = 256;
  const cache = new SliceCache(allocateSliceCache(2 * slices * 4096, 4096), () => 0);
  const load = (): Promise<void> => Promise.resolve();
  for (let key = 0; key < slices; key++) cache.unpin(await cache.acquire(key, load));
  const each = (name: string, step: (slot: number) => void): MicroBenchmark => ({
    name: `slice cache: ${name}`,
    steps: slices,
    run: () => {
      for (let key = 0; key < slices; key++) step(cache.find(key));
      return undefined;
    },
  });
  return [
    each('find', () => undefined),
    each('find and lock', (slot) => {
      cache.lockShared(slot);
      cache.unlockShared(slot);
    }),
    each('find, pin and unpin', (slot) => {
      cache.pin(slot);
      cache.unpin(slot);
    }),
    {
      name: 'slice cache: acquire',
      steps: slices,
      run: async () => {
        for (let key = 0; key < slices; key++) cache.unpin(await cache.acquire(key, load));
      },
    },
  ];
}

/** Compressing a cluster, half of which is noise, and getting it back. */
async function codecs(): Promise<MicroBenchmark[]> {
  const cluster = new Uint8Array(clusterSize);
  randomFillSync(cluster, 0, clusterSize / 2);
  const benchmarks: MicroBenchmark[] = [];
  for (const name of ['zlib', 'zstd'] satisfies CodecName[]) {
    const codec = codecFor(name);
    const output = new Uint8Array(clusterSize);
    const length = await codec.compress(cluster, output).catch(() => undefined);
    // Without the addon nothing compresses with zstd.
    if (length === undefined) continue;
    const packed = output.slice(0, length);
    const back = new Uint8Array(clusterSize);
    benchmarks.push(
      {
        name: `codecs: ${name}, compress 64 KiB`,
        steps: 1,
        run: () => codec.compress(cluster, output),
      },
      {
        name: `codecs: ${name}, decompress 64 KiB`,
        steps: 1,
        run: () => codec.decompress(packed, back),
      },
    );
  }
  return benchmarks;
}

/** Every micro benchmark. */
export async function microBenchmarks(): Promise<MicroBenchmark[]> {
  return [...(await hotPath()), ...planning(), ...(await sliceCache()), ...(await codecs())];
}
