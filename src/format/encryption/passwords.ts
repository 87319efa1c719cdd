/** The passwords of an open image, which are changed where its header of LUKS lies. */
import {
  type AddedKey,
  type ErasedKey,
  type LuksArea,
  addKey,
  eraseKeys,
  readLuksHeader,
} from './key-slots.js';
import { refusingChange, refusingImage } from './secret.js';

/** See the file's comment. Changes come one after the other: who asks for them sees to that. */
export class Passwords {
  readonly #area: LuksArea;
  readonly #filename: string;

  constructor(area: LuksArea, filename: string) {
    this.#area = area;
    this.#filename = filename;
  }

  /**
   * Adds a password. Whatever is cut off leaves those that there were, with or without the new one.
   *
   * @throws ERR_COWHERD_INVALID_ARGUMENT for what cannot be
   */
  async add(key: AddedKey): Promise<void> {
    const header = await readLuksHeader(this.#area, refusingImage(this.#filename));
    await addKey(header, this.#area, key, refusingChange(this.#filename));
  }

  /** Gives passwords up. @throws ERR_COWHERD_INVALID_ARGUMENT for what cannot be */
  async erase(key: ErasedKey): Promise<void> {
    const header = await readLuksHeader(this.#area, refusingImage(this.#filename));
    await eraseKeys(header, this.#area, key, refusingChange(this.#filename));
  }
}
