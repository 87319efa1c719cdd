/**
 * Damage that is met while an image is in use, and the mark it leaves: the corrupt bit in the header,
 * and a shared word that keeps every thread from writing any further (specification, byte 72, bit 1).
 */
import type { AtomicMemory } from '../../../engine/words/atomic-memory.js';
import { ControlWord } from '../../../engine/words/control-block.js';
import { CowherdError, type CowherdErrorDetails } from '../../../errors.js';
import type { HeaderFile } from './live-header.js';

const brand = Symbol('cowherd.corruption');

/** Metadata that contradict themselves or the format, so that writing on would do more damage. */
export class CorruptionError extends CowherdError {
  readonly [brand] = true;

  /**
   * @param problem one line without the file's name
   * @param details the guest bytes it is about, and what QEMU says of it
   */
  constructor(
    filename: string,
    problem: string,
    offset: number,
    details: Pick<CowherdErrorDetails, 'length' | 'damage'> = {},
  ) {
    const reason = 'Input/output error';
    const all = { ...details, filename, offset, reason };
    super('ERR_COWHERD_CORRUPT', `'${filename}': ${problem}`, all);
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && brand in value;
  }
}

/** One thread's view of whether an open image has been found to be corrupt. */
export class CorruptMark {
  readonly #control: AtomicMemory;
  readonly #headerFile: HeaderFile;
  readonly #filename: string;
  readonly #writable: boolean;

  /** @param writable whether the image is open for writing; else nothing is ever marked */
  constructor(control: AtomicMemory, headerFile: HeaderFile, filename: string, writable: boolean) {
    this.#control = control;
    this.#headerFile = headerFile;
    this.#filename = filename;
    this.#writable = writable;
  }

  /** Whether some thread has found the image to be corrupt since it was opened. */
  get isSet(): boolean {
    return this.#control.load(ControlWord.corrupt) !== 0;
  }

  /** @throws ERR_COWHERD_CORRUPT if the image must not be written to any more */
  check(): void {
    if (!this.isSet) return;
    const filename = this.#filename;
    throw new CowherdError(
      'ERR_COWHERD_CORRUPT',
      `'${filename}' was found to be corrupt and can no longer be written to; a repair (check -r all) may help`,
      { filename },
    );
  }

  /** Marks the image, in its header too, if that is what an error asks for. */
  async note(error: unknown): Promise<void> {
    if (!this.#writable || !(error instanceof CorruptionError)) return;
    this.#control.store(ControlWord.corrupt, 1);
    // Where the header cannot be written either, the error that is under way tells more.
    await this.#headerFile.setCorrupt().catch(() => undefined);
  }
}
