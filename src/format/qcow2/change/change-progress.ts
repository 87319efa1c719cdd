/** How far a change in several steps is, as QEMU's tools tell it: of steps that are to come, as much is expected. */
import type { AbortSignalLike } from '../../../abort-signal.js';
import type { ChangeOptions } from '../../driver.js';

/** How one step is cancelled, and who hears how far it is: parts that were looked at, and all there are. */
export interface StepOptions {
  readonly signal: AbortSignalLike | undefined;
  readonly onPart: (done: number, all: number) => void;
}

/** The progress of one change. */
export class ChangeProgress {
  readonly #steps: number;
  #begun = 0;
  /** Parts of the steps that have begun. */
  #parts = 0;

  /** @param steps how many there are */
  constructor(steps: number) {
    this.#steps = steps;
  }

  /**
   * Begins the next step.
   *
   * @param partBytes bytes of tables that a part stands for
   */
  next({ signal, onProgress }: ChangeOptions, partBytes: number): StepOptions {
    this.#begun += 1;
    const before = this.#parts;
    const onPart = (done: number, all: number): void => {
      this.#parts = before + all;
      const toCome = Math.floor((this.#parts * (this.#steps - this.#begun)) / this.#begun);
      onProgress((before + done) * partBytes, (this.#parts + toCome) * partBytes);
    };
    return { signal, onPart };
  }
}
