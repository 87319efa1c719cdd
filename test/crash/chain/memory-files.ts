/** Files in memory that are opened by name, as programs open them: images of a chain whose disk is cut off. */
import { registerProtocol } from '../../../src/storage/registry.js';
import {
  MemoryContent,
  MemoryFile,
  type Schedule,
} from '../../../src/storage/memory/memory-file.js';
import type { StorageFile } from '../../../src/storage/storage.js';
import { bytesOf, contentOf } from '../open-over.js';

const prefix = 'cut://';

/** See the file's comment. There is one set of them at a time, which `place` replaces. */
export class MemoryFiles {
  readonly #contents = new Map<string, MemoryContent>();
  /** Stands between who opens a file and the file. */
  wrap: (file: StorageFile, name: string) => StorageFile = (file) => file;
  schedule: Schedule | undefined;

  constructor() {
    const open = (url: string, readOnly: boolean): Promise<StorageFile> => {
      const name = url.slice(prefix.length);
      const content = this.#contents.get(name);
      if (content === undefined) throw new Error(`there is no file '${name}'`);
      const schedule = this.schedule === undefined ? {} : { schedule: this.schedule };
      const file = new MemoryFile(url, { content, readOnly, ...schedule });
      return Promise.resolve(this.wrap(file, name));
    };
    registerProtocol({
      name: 'cut',
      prefix,
      open: (url, { readOnly = false }) => open(url, readOnly),
      create: (url) => {
        this.#contents.set(url.slice(prefix.length), new MemoryContent());
        return open(url, false);
      },
      identify: (url) => Promise.resolve(url),
    });
  }

  /** The name by which a file is opened. */
  nameOf(name: string): string {
    return `${prefix}${name}`;
  }

  /** The bytes of every file. */
  bytes(): ReadonlyMap<string, Uint8Array> {
    return new Map([...this.#contents].map(([name, content]) => [name, bytesOf(content)]));
  }

  /** Puts other files in the place of those that are there, and nothing between. */
  place(files: ReadonlyMap<string, Uint8Array>): void {
    this.#contents.clear();
    for (const [name, bytes] of files) this.#contents.set(name, contentOf(bytes));
    this.wrap = (file) => file;
    this.schedule = undefined;
  }
}
