/**
 * What crosses from one thread to another when both hold one image open: the files, the shared
 * memory of each format, and the chain below.
 */
import { ControlWord, GateState } from '../../engine/words/control-block.js';
import { join } from '../../engine/queues/members.js';
import { SharedWords } from '../../engine/words/shared-words.js';
import { CowherdError } from '../../errors.js';
import type { FormatHandle } from '../../format/driver.js';
import { joinUntilThreadEnd, setWordAtThreadEnd } from '../../native/thread-end.js';
import type { StorageFile, StorageHandle } from '../../storage/storage.js';
import type { OpenImageOptions } from '../api/options.js';
import type { SharedState } from './shared-state.js';

/** What an `ImageHandle` holds: one image of a chain, and those below it. */
export interface LinkHandle {
  readonly shared: SharedState;
  readonly file: StorageHandle;
  /** The files it is spread over, by their roles. */
  readonly children: readonly { readonly role: string; readonly file: StorageHandle }[];
  readonly image: FormatHandle;
  readonly backing: LinkHandle | undefined;
  /** The replacement that `backing` came with. */
  readonly replacement: number;
  readonly probed: boolean;
  readonly options: OpenImageOptions;
}

/** The handle of a storage file. @throws ERR_COWHERD_UNSUPPORTED for one of this thread's memory */
export function fileHandle(file: StorageFile): StorageHandle {
  const handle = file.handle?.();
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
    undo.push(setWordAtThreadEnd(link.shared.control, ControlWord.gate, GateState.poisoned));
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
export function joinImage({ shared }: LinkHandle): (() => void) | undefined {
  const { members, control } = shared;
  const joins = (): boolean => join(new SharedWords(members));
  return joinUntilThreadEnd(members, joins, control, ControlWord.gate, GateState.poisoned);
}
