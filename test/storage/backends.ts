/** Every storage backend and mode that the conformance tests run over. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { addon } from '../../src/native/addon.js';
import type { EngineName } from '../../src/native/ring.js';
import { createFileNode } from '../../src/storage/file/file-node.js';
import { createFilePosix } from '../../src/storage/file/file-posix.js';
import { MemoryFile } from '../../src/storage/memory/memory-file.js';
import type { CacheMode, StorageFile } from '../../src/storage/storage.js';
import { projectFolder } from '../support/tools.js';

/** One way to have an empty file. */
export interface Backend {
  readonly name: string;
  /** @returns a new, empty, writable file, closed and removed with the test */
  create(t: TestContext): Promise<StorageFile>;
}

/** A folder on the file system of the project, removed with the test: /tmp may lie in memory. */
export function diskFolder(t: TestContext): string {
  const place = path.join(projectFolder, 'build');
  mkdirSync(place, { recursive: true });
  const folder = mkdtempSync(path.join(place, 'test-storage-'));
  t.after(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

async function closedWithTest(t: TestContext, opened: Promise<StorageFile>): Promise<StorageFile> {
  const file = await opened;
  t.after(() => file.close());
  return file;
}

function posix(aio: EngineName, cache: CacheMode): Backend {
  return {
    name: `file-posix ${aio} ${cache}`,
    create: (t) => {
      if (addon === undefined) throw new Error('the addon is not built');
      const filename = path.join(diskFolder(t), 'file');
      return closedWithTest(t, createFilePosix(addon, filename, { aio, cache }));
    },
  };
}

/** All of them; without the addon, those that need none. */
export const backends: readonly Backend[] = [
  { name: 'memory', create: (t) => closedWithTest(t, Promise.resolve(new MemoryFile())) },
  {
    name: 'file-node',
    create: (t) => closedWithTest(t, createFileNode(path.join(diskFolder(t), 'file'), {})),
  },
  ...(addon === undefined
    ? []
    : (['auto', 'io_uring', 'threads'] as const).flatMap((aio) => [
        posix(aio, 'writeback'),
        posix(aio, 'none'),
      ])),
];

/** A file of the backend; skips the test where the file system refuses the mode. */
export async function createOrSkip(
  t: TestContext,
  backend: Backend,
): Promise<StorageFile | undefined> {
  try {
    return await backend.create(t);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (!/Invalid argument|not available/.test(message)) throw error;
    t.skip(`this system refuses ${backend.name}: ${message}`);
    return undefined;
  }
}
