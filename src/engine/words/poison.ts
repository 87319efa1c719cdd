/**
 * Poison: once a thread has died that had an image open, what it held half-done can be told by
 * nobody, so every other queue of the image fails with a clear error from then on.
 */
import { CowherdError } from '../../errors.js';
import { ControlWord, GateState } from './control-block.js';

/** What one thread knows of the poisoning of an image. */
export class Poison {
  readonly #control: Int32Array;
  readonly #filename: string;

  constructor(control: Int32Array, filename: string) {
    this.#control = control;
    this.#filename = filename;
  }

  /** Whether the image must not be used any more. */
  get isSet(): boolean {
    return Atomics.load(this.#control, ControlWord.gate) === GateState.poisoned;
  }

  /** Notes that a thread has died which had the image open, for whoever uses it. */
  set(): void {
    Atomics.store(this.#control, ControlWord.gate, GateState.poisoned);
    Atomics.notify(this.#control, ControlWord.gate);
  }

  /** @throws ERR_COWHERD_POISONED if the image must not be used any more */
  check(): void {
    if (this.isSet) throw this.error();
  }

  /** The error of every request from then on. */
  error(): CowherdError {
    const filename = this.#filename;
    return new CowherdError(
      'ERR_COWHERD_POISONED',
      `'${filename}' can no longer be used: a thread that had it open has died; open it again`,
      { filename },
    );
  }
}
