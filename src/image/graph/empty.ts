/** Making an open image as if nothing had ever been written to it, whichever format it has. */
import type { ResizedDisk } from './resize.js';

/** See `OpenedImage.empty`. Images of formats that cannot give up clusters keep what they hold. */
export async function emptyDisk({
  format,
  node,
  openQueue,
}: Omit<ResizedDisk, 'filename'>): Promise<void> {
  if ((await format.empty?.()) === true) return;
  const { queue, close } = openQueue();
  try {
    const { clusterSize = 1 } = format;
    await queue.forget?.(0, Math.ceil(node.size / clusterSize) * clusterSize);
    await queue.flush();
  } finally {
    await close();
  }
}
