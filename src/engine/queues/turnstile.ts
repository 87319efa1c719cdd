/** Turns that are given out in one order and used in the same, one after the other. */
import type { DescribeWait, Watchdog } from '../words/watchdog.js';

/** One turn: it begins when all that were taken before it have ended. */
export interface Turn {
  readonly begins: Promise<void>;
  /** Lets the next one begin; ending twice is ending once. */
  end(): void;
}

/** Gives out turns. Whoever takes one has to end it, also if it was not used. */
export class Turnstile {
  readonly #watchdog: Watchdog | undefined;
  #last: Promise<void> = Promise.resolve();
  /** Who has the turns that have not ended, in their order. */
  readonly #open = new Set<DescribeWait>();

  /** @param watchdog hears of waits for a turn that last */
  constructor(watchdog?: Watchdog) {
    this.#watchdog = watchdog;
  }

  /** Whether every turn that was taken has ended. */
  get isIdle(): boolean {
    return this.#open.size === 0;
  }

  /**
   * Takes the next turn.
   *
   * @param holder says who takes it, to whoever waits for its end in vain; a function of its own
   */
  take(holder: DescribeWait): Turn {
    const before = this.#last;
    const begins = this.isIdle
      ? before
      : (this.#watchdog?.watch(before, () => this.#describe()) ?? before);
    this.#open.add(holder);
    let end = (): void => undefined;
    let hasEnded = false;
    this.#last = new Promise((resolve) => {
      end = () => {
        if (hasEnded) return;
        hasEnded = true;
        // One that ends before it began does not let others overtake those before it.
        void before.then(() => {
          this.#open.delete(holder);
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

  #describe(): string {
    const first = this.#open.values().next().value;
    const holder = first === undefined ? '' : `, which ${first()} has`;
    return `its turn to take clusters${holder}`;
  }
}
