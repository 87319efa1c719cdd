/** The mounted files that one thread serves. */
import type { Image } from '../../image/api/image.js';
import { FuseSession } from './fuse-session.js';

/** An open image as a file. */
export interface FuseExport {
  readonly image: Image;
  readonly readOnly: boolean;
}

/** A thread's part in serving a mounted file. */
export interface FuseOrder {
  /** Of the mount, the thread's from now on. */
  readonly descriptor: number;
  /** Of the image, in every thread's list. */
  readonly exportIndex: number;
  /** Of the file's owner. */
  readonly userId: number;
  readonly groupId: number;
}

/** See the file's comment. */
export class FuseHost {
  readonly #exports: readonly FuseExport[];
  readonly #sessions = new Set<FuseSession>();

  constructor(exports: readonly FuseExport[]) {
    this.#exports = exports;
  }

  /** Serves a file until it is no longer mounted. @throws what keeps the image from having another queue */
  async serve({ descriptor, exportIndex, userId, groupId }: FuseOrder): Promise<void> {
    const { image, readOnly } = this.#exports[exportIndex];
    const queue = await image.openQueue();
    const session = new FuseSession(descriptor, { image, queue, readOnly, userId, groupId });
    this.#sessions.add(session);
    await session.ended;
    this.#sessions.delete(session);
    await queue.close();
  }

  /** Answers what is under way, and serves nothing any more. */
  async close(): Promise<void> {
    const sessions = [...this.#sessions];
    for (const session of sessions) session.end();
    await Promise.all(sessions.map(({ ended }) => ended));
  }
}
