/** A protocol: how files are opened, made and told apart by their names. */
import type { OpenOption } from './open-option.js';
import type {
  StorageCreateOptions,
  StorageFile,
  StorageHandle,
  StorageOpenOptions,
} from './storage.js';

/** See the file's comment. What it is given last does the same for names of any protocol. */
export interface Protocol {
  /** QEMU's name of the driver. */
  readonly name: string;
  /** Whether lists of options have its files, by its name as their driver; default true. */
  readonly isDriver?: boolean;
  /** What its names begin with; `NAME://` if left out. */
  readonly prefix?: string;
  /** The options that its files are opened with, beside those of all files. */
  readonly openOptions?: readonly OpenOption[];
  /**
   * The name that options of QEMU's driver make together, where one option does not name the file.
   *
   * @param take an option's value, if it is given
   * @returns undefined if they make none
   */
  nameOf?(take: (name: string) => string | undefined): string | undefined;
  /** @throws CowherdError naming the file, if it cannot be opened so */
  open(
    name: string,
    options: StorageOpenOptions,
    openFile: (name: string, options: StorageOpenOptions) => Promise<StorageFile>,
  ): Promise<StorageFile>;
  /** Creates a file, or empties one; absent where that cannot be. */
  create?(name: string, options: StorageCreateOptions): Promise<StorageFile>;
  /** Opens, on this thread, the file of another thread's handle; absent where there are no handles. */
  attach?(handle: StorageHandle): Promise<StorageFile>;
  /** A text that is the same for all names of one file. */
  identify(name: string, identifyFile: (name: string) => Promise<string>): Promise<string>;
}
