/** Turns that are given out in one order and used in the same, one after the other. */

/** One turn: it begins when all that were taken before it have ended. */
export interface Turn {
  readonly begins: Promise<void>;
  /** Lets the next one begin; ending twice is ending once. */
  end(): void;
}

/** Gives out turns. Whoever takes one has to end it, also if it was not used. */
export class Turnstile {
  #last: Promise<void> = Promise.resolve();
  #open = 0;

  /** Whether every turn that was taken has ended. */
  get isIdle(): boolean {
    return this.#open === 0;
  }

  /** Takes the next turn. */
  take(): Turn {
    const begins = this.#last;
    this.#open += 1;
    let end = (): void => undefined;
    let hasEnded = false;
    this.#last = new Promise((resolve) => {
      end = () => {
        if (hasEnded) return;
        hasEnded = true;
        // One that ends before it began does not let others overtake those before it.
        void begins.then(() => {
          this.#open -= 1;
          resolve();
        });
      };
    });
    return {
      begins,
      end: () => {
        end();
      },
    };
  }
}
