/** Opening an image whose files, backing file and data file lie in memory, as `openImageOn` does. */
import { QueueCounters } from '../../src/engine/queues/counters.js';
import { permissionsOf } from '../../src/image/graph/permissions.js';
import { edgeTo } from '../support/edge.js';
import { Node } from '../../src/engine/queues/node.js';
import { type Qcow2Image, openQcow2, readQcow2Header } from '../../src/format/qcow2/image.js';
import type { OverlapLevel } from '../../src/format/qcow2/overlap/levels.js';
import { openRaw } from '../../src/format/raw/image.js';
import { OpenedImage } from '../../src/image/graph/opened-image.js';
import { allocateSharedState } from '../../src/image/graph/shared-state.js';
import { MemoryFile } from '../../src/storage/memory/memory-file.js';
import { MemoryContent } from '../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../src/storage/storage.js';

/** What an image lies in. */
export interface ImageFiles {
  readonly file: StorageFile;
  readonly dataFile: StorageFile | undefined;
  /** Content of a raw backing file. */
  readonly backing: Uint8Array | undefined;
  /** Stands between the engine and the file of the backing image. */
  readonly wrapBacking?: (file: StorageFile) => StorageFile;
  /** Which metadata writes are kept off; all by default. */
  readonly overlapCheck?: OverlapLevel;
  /** Budget of the metadata cache; the smallest by default. */
  readonly cacheBytes?: number;
  /** Whether clusters are reserved ahead; they are by default. */
  readonly reserveAhead?: boolean | undefined;
}

/**
 * Opens an image.
 *
 * @param prepare changes the format's parts before anything is done with them
 */
export async function openOver(
  {
    file,
    dataFile,
    backing,
    wrapBacking = (file) => file,
    overlapCheck = 'all',
    cacheBytes = 0,
    reserveAhead,
  }: ImageFiles,
  prepare: (format: Qcow2Image) => void = () => undefined,
): Promise<OpenedImage> {
  const header = await readQcow2Header(file);
  const shared = allocateSharedState();
  const node = new Node(shared.control, file.filename, permissionsOf(file, {}));
  const counters = QueueCounters.take(shared.counters);
  const format = await openQcow2(file, header, {
    node,
    counters,
    dataFile,
    readOnly: file.readOnly,
    forInfo: false,
    cacheSizes: { total: cacheBytes },
    overlapCheck,
    lazyRefcounts: undefined,
    inOrder: false,
    reserveAhead,
    snapshot: undefined,
    forCheck: false,
    onFinding: undefined,
  });
  node.resize(format.size);
  prepare(format);
  return new OpenedImage({
    file,
    children: dataFile === undefined ? [] : [{ role: 'data-file', file: dataFile }],
    formatName: 'qcow2',
    format,
    edge: edgeTo(node, shared, backing && (await openBacking(backing, wrapBacking))),
    options: {},
    shared,
    node,
    counters,
  });
}

async function openBacking(
  bytes: Uint8Array,
  wrap: (file: StorageFile) => StorageFile,
): Promise<OpenedImage> {
  const file = wrap(new MemoryFile('base.raw', { content: contentOf(bytes), readOnly: true }));
  const shared = allocateSharedState();
  const node = new Node(shared.control, file.filename, permissionsOf(file, {}));
  const format = await openRaw(file, node);
  node.resize(format.size);
  const counters = QueueCounters.take(shared.counters);
  const parts = { children: [], formatName: 'raw', options: {}, edge: undefined };
  return new OpenedImage({ ...parts, file, format, shared, node, counters });
}

/** Bytes as the content of a memory file. */
export function contentOf(bytes: Uint8Array): MemoryContent {
  const content = new MemoryContent();
  content.write(bytes, 0);
  return content;
}

/** The content of a memory file as bytes. */
export function bytesOf(content: MemoryContent): Uint8Array {
  const bytes = new Uint8Array(content.size);
  content.read(bytes, 0);
  return bytes;
}
