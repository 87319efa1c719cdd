/**
 * Long work that waits for nothing lets the event loop have its turn: signals and timers are heard there.
 * Nothing here may import another layer.
 */
import { setImmediate } from 'node:timers/promises';

/** For how long work goes on at most before others have their turn. */
const turnMs = 20;

/** The turns of one long piece of work. */
export class TurnOfOthers {
  #sinceMs = performance.now();

  /** Whether it is time to call `take`; cheap enough to be asked in each step. */
  get due(): boolean {
    return performance.now() - this.#sinceMs >= turnMs;
  }

  /** Waits until the event loop has gone round. */
  async take(): Promise<void> {
    await setImmediate();
    this.#sinceMs = performance.now();
  }
}
