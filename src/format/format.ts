/** What is known of a format before anything of it is loaded: its name, and how its files are told. */
import type { OpenOption } from '../storage/open-option.js';
import type { StorageFile } from '../storage/storage.js';
import type { FormatCreation } from './create-options.js';
import type { FormatDriver } from './driver.js';
import type { Beginning } from './probe.js';

/** A format. */
export interface Format {
  /** As QEMU names it. */
  readonly name: string;
  /** What sentences call it. */
  readonly title: string;
  /** Whether a file that begins so is of this format. */
  recognises?(begin: Beginning): boolean;
  /** The same for what shows elsewhere in the file; asked if no format recognises its begin. */
  recognisesFile?(file: StorageFile): Promise<boolean>;
  /** Whether what begins so, and is no image of this format, could be taken for one elsewhere. */
  resembles?(begin: Beginning): boolean;
  /**
   * Whether images of it are the disk and nothing else: no tables that others could change under a
   * reader, and nothing that tells it from other bytes.
   */
  readonly isBare?: boolean;
  /** The options that its images are opened with, beside those of every format and file. */
  readonly openOptions?: readonly OpenOption[];
  /** QEMU's names of the other images and files that an image can be given at opening. */
  readonly openChildren?: readonly ('backing' | 'data-file')[];
  /** How images of it are made; absent where they only are read. */
  readonly creation?: FormatCreation;
  /** Its driver, which is loaded then; absent for a format that is only recognised. */
  readonly load?: () => Promise<FormatDriver>;
}
