/**
 * A file whose requests are told of before they are made, to whoever hears what is done above a file. Where nobody
 * does it is the file itself, and telling costs nothing.
 */
import type { EventHearer, StorageFile } from '../storage.js';
import {
  FilterFile,
  type Interception,
  type OperationKind,
  type StorageOperation,
} from './filter-file.js';

/** The events that requests of some kinds are, by QEMU's names. */
export type EventsOfRequests = Readonly<Partial<Record<OperationKind, string>>>;

/** The file for requests that are such events. @param events who hears them, which may be above another file */
export function announced(
  file: StorageFile,
  names: EventsOfRequests,
  events = file.events,
): StorageFile {
  return events === undefined ? file : new AnnouncedFile(file, names, events);
}

class AnnouncedFile extends FilterFile {
  readonly #names: EventsOfRequests;
  readonly #events: EventHearer;

  constructor(inner: StorageFile, names: EventsOfRequests, events: EventHearer) {
    super(inner);
    this.#names = names;
    this.#events = events;
  }

  openQueue(): StorageFile {
    return new AnnouncedFile(this.inner.openQueue(), this.#names, this.#events);
  }

  protected intercept({ kind }: StorageOperation): Interception {
    const name = this.#names[kind];
    return name === undefined ? undefined : this.#events.hear(name)?.then(() => undefined);
  }
}
