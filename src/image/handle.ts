/**
 * What crosses from one thread to another when both hold one image open: the files, the shared
 * memory of each format, and the chain below.
 */
import { ControlWord, GateState } from '../engine/control-block.js';
import { join } from '../engine/members.js';
import { SharedWords } from '../engine/shared-words.js';
import { CowherdError } from '../errors.js';
import type { Qcow2Handle } from '../format/qcow2/image.js';
import type { RawHandle } from '../format/raw/image.js';
import { joinUntilThreadEnd, setWordAtThreadEnd } from '../native/thread-end.js';
import { type StorageHandle, storageHandle } from '../storage/open-file.js';
import type { StorageFile } from '../storage/storage.js';
import type { OpenImageOptions } from './api.js';
import type { SharedState } from './shared-state.js';

/** What an `ImageHandle` holds: one image of a chain, and those below it. */
export interface LinkHandle {
  readonly shared: SharedState;
  readonly file: StorageHandle;
  readonly dataFile: StorageHandle | undefined;
  readonly image: Qcow2Handle | RawHandle;
  readonly backing: LinkHandle | undefined;
  readonly probed: boolean;
  readonly options: OpenImageOptions;
}

/** The handle of a storage file. @throws ERR_COWHERD_UNSUPPORTED for one of this thread's memory */
export function fileHandle(file: StorageFile): StorageHandle {
  const handle = storageHandle(file);
  if (handle !== undefined) return handle;
  const { filename } = file;
  throw new CowherdError(
    'ERR_COWHERD_UNSUPPORTED',
    `'${filename}' lies in the memory of one thread, or behind a filter; other threads cannot open it`,
    { filename },
  );
}

/**
 * Poisons an image, and the images below it, should this thread end before it has left them.
 *
 * @returns takes that back
 */
export function poisonAtThreadEnd(handle: LinkHandle): () => void {
  const undo: (() => void)[] = [];
  for (let link: LinkHandle | undefined = handle; link !== undefined; link = link.backing) {
    if (link.image.format !== 'qcow2') continue;
    const { control } = link.image.memory;
    undo.push(setWordAtThreadEnd(control, ControlWord.gate, GateState.poisoned));
  }
  return () => {
    for (const each of undo) each();
  };
}

/**
 * Makes this thread one of those that have the image of a handle open, not those below it, and
 * poisons it should the thread end before it has left.
 *
 * @returns takes the second part back; undefined if no thread has the image open any more
 */
export function joinImage({ image, shared }: LinkHandle): (() => void) | undefined {
  const { members } = shared;
  const joins = (): boolean => join(new SharedWords(members));
  if (image.format !== 'qcow2') return joins() ? (): void => undefined : undefined;
  const { control } = image.memory;
  return joinUntilThreadEnd(members, joins, control, ControlWord.gate, GateState.poisoned);
}
