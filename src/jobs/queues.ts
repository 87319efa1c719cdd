/** The queues of this thread that a job works on an image with. */
import type { Image, ImageQueue, RequestTarget } from '../image/api/image.js';
import { closeEach } from '../image/graph/cleanup-steps.js';

/** The image's own queue and others beside it, `count` in all. They end with the image. */
export async function openQueues(
  image: Image,
  count = 1,
): Promise<readonly [Image, ...ImageQueue[]]> {
  return [image, ...(await openMore(image, count - 1))];
}

/** Runs `work` on so many queues of an image that stays open, and closes those it opened. */
export async function withQueues<Result>(
  image: Image,
  count: number,
  work: (queues: readonly RequestTarget[]) => Promise<Result>,
): Promise<Result> {
  const more = await openMore(image, count - 1);
  try {
    return await work([image, ...more]);
  } finally {
    await closeEach(more);
  }
}

async function openMore(image: Image, count: number): Promise<ImageQueue[]> {
  const queues: ImageQueue[] = [];
  while (queues.length < count) queues.push(await image.openQueue());
  return queues;
}
