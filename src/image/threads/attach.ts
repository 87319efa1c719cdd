/** Opening an image on a thread by the handle that another thread, which has it open, has given. */
import { QueueCounters } from '../../engine/queues/counters.js';
import { Node } from '../../engine/queues/node.js';
import { ControlWord } from '../../engine/words/control-block.js';
import { leave } from '../../engine/queues/members.js';
import { SharedWords } from '../../engine/words/shared-words.js';
import { CowherdError, nameMemoryError } from '../../errors.js';
import type { ChildFile, FormatImage } from '../../format/driver.js';
import { attachStorageFile, registerProtocol } from '../../storage/registry.js';
import type { StorageFile } from '../../storage/storage.js';
import type { Image, ImageHandle } from '../api/image.js';
import { closeEach } from '../graph/cleanup-steps.js';
import { loadDriver } from '../names/formats.js';
import { type LinkHandle, joinImage } from '../graph/handle.js';
import { noteOpen } from '../graph/left-open.js';
import { permissionsOf } from '../graph/permissions.js';
import { attachedNestedImages } from '../graph/nested.js';
import { attachEdge, nestedProtocol } from '../graph/open.js';
import { OpenedImage } from '../graph/opened-image.js';

/**
 * Joins the threads that have an image open; this thread gets a queue of its own. The last of them
 * to close the image makes everything durable.
 *
 * @param handle from `image.handle()` of a thread that still has the image open
 * @throws ERR_COWHERD_INVALID_ARGUMENT for what is no handle, ERR_COWHERD_CLOSED if no thread has
 *   the image open any more, ERR_COWHERD_POISONED if one has died that had
 */
export async function attachImage(handle: ImageHandle): Promise<Image> {
  const link = handle as unknown as Partial<LinkHandle> | null | undefined;
  if (link?.file === undefined || link.shared === undefined) {
    const message = 'Invalid image handle: what image.handle() gave is expected';
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
  }
  try {
    const image = await attachLink(link as LinkHandle);
    image.onClosed(noteOpen(image, !image.readOnly));
    return image;
  } catch (error) {
    throw nameMemoryError(error, link.file.filename);
  }
}

registerProtocol(
  attachedNestedImages(nestedProtocol, (handle) => attachLink(handle as unknown as LinkHandle)),
);

async function attachLink(handle: LinkHandle): Promise<OpenedImage> {
  const opened: { close(): Promise<void> }[] = [];
  try {
    const file = await attachStorageFile(handle.file);
    opened.push(file);
    const children: ChildFile[] = [];
    for (const child of handle.children) {
      const childFile = await attachStorageFile(child.file);
      opened.push(childFile);
      children.push({ role: child.role, file: childFile });
    }
    let backing: OpenedImage | undefined;
    // What was put there since is opened when it is read.
    const isCurrent =
      Atomics.load(handle.shared.control, ControlWord.edgeReplacements) === handle.replacement;
    if (handle.backing !== undefined && isCurrent) {
      backing = await attachLink(handle.backing);
      opened.push(backing);
    }
    return await openLink(handle, file, children, backing);
  } catch (error) {
    await closeEach(opened.reverse()).catch(() => undefined);
    throw error;
  }
}

async function openLink(
  handle: LinkHandle,
  file: StorageFile,
  children: readonly ChildFile[],
  backing: OpenedImage | undefined,
): Promise<OpenedImage> {
  const { image, shared, options, probed } = handle;
  const driver = await loadDriver(image.format, file.filename);
  const forget = joinImage(handle);
  if (forget === undefined) {
    const { filename } = file;
    throw new CowherdError('ERR_COWHERD_CLOSED', `'${filename}' is closed`, { filename });
  }
  const counters = QueueCounters.take(shared.counters);
  let format: FormatImage | undefined;
  try {
    const node = new Node(shared.control, file.filename, permissionsOf(file, options));
    node.poison.check();
    format = driver.attach([file, ...children.map((child) => child.file)], image, node, counters);
    const formatName = driver.name;
    const edge =
      driver.hasBacking === true
        ? attachEdge({ node, format, options }, shared.edge, backing, handle.replacement)
        : undefined;
    const parts = {
      file,
      children,
      formatName,
      format,
      edge,
      probed,
      options,
      shared,
      isAttached: true,
      node,
      counters,
    };
    const opened = new OpenedImage(parts);
    opened.onClosed(forget);
    return opened;
  } catch (error) {
    counters.release();
    // The others may all have left meanwhile; then the image's end is ours.
    const isLast = leave(new SharedWords(shared.members));
    await format?.close(isLast).catch(() => undefined);
    forget();
    throw error;
  }
}
