/**
 * What every storage file promises, as cases for any test runner: for who writes a storage of their own.
 * The package exports this as `cowherd/conformance`.
 */
import type { StorageFile } from '../storage.js';
import { fixedPromises, resizingPromises } from './length.js';
import { type Promised, type Promises, pattern } from './promise.js';
import { readOnlyPromises, readingPromises } from './reading.js';
import { writingPromises } from './writing.js';

/** The storage that is tried. */
export interface ConformingStorage {
  /**
   * Makes a file that is no other case's, opens it, and gives it away: the case closes it. It holds the
   * bytes that are given; a storage that is written to and resized is always given none.
   *
   * @param content 1 MiB, or a little less where only reading is tried
   */
  create(content: Uint8Array): StorageFile | Promise<StorageFile>;
  /** Called at the end of each case, when its file is closed: removes what `create` made. */
  readonly remove?: ((file: StorageFile) => void | Promise<void>) | undefined;
  /** Whether its files are written to; default true. */
  readonly writing?: boolean | undefined;
  /** Whether files that are written to grow and shrink; default true. False for what is like a device. */
  readonly resizing?: boolean | undefined;
}

/** One promise, and how it is tried. */
export interface ConformanceCase {
  /** What is promised; no two cases share it. */
  readonly name: string;
  /** Takes no arguments. Rejects, with an AssertionError where the promise is broken. */
  readonly run: () => Promise<void>;
}

const contentBytes = 1 << 20;
/** Files that are only read may end anywhere. */
const oddBytes = contentBytes - 333;

/**
 * The cases that fit a storage: every file is read; those that are written to and resized are tried for
 * that too. Where a file says by its `limits` that it knows of holes, it is held to that.
 */
export function storageConformance(storage: ConformingStorage): readonly ConformanceCase[] {
  const { writing = true, resizing = true } = storage;
  const given = pattern(writing ? contentBytes : oddBytes, 1);
  const none = new Uint8Array(0);
  const filled = async (): Promise<StorageFile> => {
    if (!writing || !resizing) return await storage.create(given.slice());
    const file = await storage.create(none);
    await file.write(given, 0);
    return file;
  };
  const empty = async (): Promise<StorageFile> => await storage.create(none);
  const cases = (promises: Promises, create: () => Promise<StorageFile>): ConformanceCase[] =>
    Object.entries(promises).map(([name, promised]) => ({
      name,
      run: () => runCase(storage, create, promised, given),
    }));
  return [
    ...cases(readingPromises, filled),
    ...(writing ? cases(writingPromises, filled) : cases(readOnlyPromises, filled)),
    ...(writing && resizing ? cases(resizingPromises, empty) : []),
    ...(writing && !resizing ? cases(fixedPromises, filled) : []),
  ];
}

async function runCase(
  { remove }: ConformingStorage,
  create: () => Promise<StorageFile>,
  promised: Promised,
  content: Uint8Array,
): Promise<void> {
  const file = await create();
  try {
    await promised(file, content);
  } finally {
    await file.close();
    await remove?.(file);
  }
}
