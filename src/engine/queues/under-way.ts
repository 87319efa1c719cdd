/** How much of something is under way on this thread, for whoever waits until nothing is. */
import assert from 'node:assert/strict';

/** A count of what has begun and has not ended. */
export class UnderWay {
  #count = 0;
  #onIdle: (() => void)[] = [];

  begin(): void {
    this.#count++;
  }

  end(): void {
    assert(this.#count > 0, 'what ends was not under way');
    if (--this.#count > 0 || this.#onIdle.length === 0) return;
    const waiting = this.#onIdle;
    this.#onIdle = [];
    for (const resolve of waiting) resolve();
  }

  /** Runs work from its begin to its end. */
  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    this.begin();
    try {
      return await work();
    } finally {
      this.end();
    }
  }

  /** Resolves once nothing is under way. */
  async idle(): Promise<void> {
    while (this.#count > 0) await new Promise<void>((resolve) => this.#onIdle.push(resolve));
  }
}
