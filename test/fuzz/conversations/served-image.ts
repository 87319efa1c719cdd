/** A new image that is served, until what was served is looked at. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type ServeOptions, type Server, serve } from '../../../src/export/serve.js';
import { createImage } from '../../../src/image/graph/create.js';
import { openImage } from '../../../src/image/graph/open.js';

/** See the file's comment. */
export interface ServedImage {
  readonly server: Server;
  readonly socket: string;
  /** What was told since this was last emptied. */
  readonly problems: string[];
  /** @throws if what was served is damaged */
  close(): Promise<void>;
}

/** Serves a new image named `disk`, by one thread. @param addresses what it is served at, given a socket's path */
export async function serveNew(
  size: number,
  addresses: (socket: string) => ServeOptions,
): Promise<ServedImage> {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-fuzz-'));
  const file = path.join(folder, 'disk.qcow2');
  await createImage(file, { format: 'qcow2', size });
  const image = await openImage(file);
  const socket = path.join(folder, 'socket');
  const problems: string[] = [];
  const server = await serve([{ image, name: 'disk', description: 'for tests' }], {
    ...addresses(socket),
    workers: 1,
    onProblem: (why) => problems.push(why),
  });
  return {
    server,
    socket,
    problems,
    async close() {
      await server.close();
      const { corruptions, checkErrors } = await image.check();
      await image.close();
      await rm(folder, { recursive: true });
      if (corruptions + checkErrors > 0) throw new Error('the image served is damaged');
    },
  };
}
