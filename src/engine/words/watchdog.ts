/**
 * A watchdog over waits that have no bound: one that lasts too long is told of, once for each image and
 * thread, by a process warning that names what is waited for and who holds it. Waiting goes on: whoever
 * holds it may be slow, and only a thread that has died is known not to come back (see poison).
 */
import { monotonicMs } from '../../clock.js';

const defaultLimitSeconds = 60;
/** A word that nobody has waited for in vain for so long is waited for anew. */
const pauseMs = 1000;
/** How often, within the limit, waits of this thread are looked at. */
const looks = 4;

/** Milliseconds after which a wait is told of: `COWHERD_STALL_SECONDS`, where 0 is never. */
function configuredLimitMs(): number {
  const seconds = Number(process.env['COWHERD_STALL_SECONDS'] ?? defaultLimitSeconds);
  return seconds > 0 ? seconds * 1000 : Infinity;
}

/** Says in words what is waited for, and who holds it. */
export type DescribeWait = () => string;

interface Wait {
  readonly sinceMs: number;
  readonly describe: DescribeWait;
}

/** The waits of one thread for one image. */
export class Watchdog {
  readonly #filename: string;
  readonly #limitMs: number;
  readonly #waits = new Set<Wait>();
  #timer: NodeJS.Timeout | undefined;
  #hasTold = false;

  constructor(filename: string, limitMs = configuredLimitMs()) {
    this.#filename = filename;
    this.#limitMs = limitMs;
  }

  /**
   * Watches work that waits for something of this thread's own; does not keep the process alive.
   *
   * @returns the work itself: who waits for it goes on when it would have without being watched, so that
   *   nobody who does not wait comes first
   */
  watch<Result>(work: Promise<Result>, describe: DescribeWait): Promise<Result> {
    if (this.#limitMs === Infinity || this.#hasTold) return work;
    const wait = { sinceMs: monotonicMs(), describe };
    this.#waits.add(wait);
    this.#timer ??= setInterval(() => {
      this.#look();
    }, this.#limitMs / looks).unref();
    const end = (): void => {
      this.#waits.delete(wait);
      if (this.#waits.size === 0) this.#rest();
    };
    void work.then(end, end);
    return work;
  }

  /** Tells of a wait that has lasted for so long, if that is too long. */
  tell(waitedMs: number, describe: DescribeWait): void {
    if (waitedMs < this.#limitMs || this.#hasTold) return;
    this.#hasTold = true;
    const seconds = Math.round(waitedMs / 1000);
    const message = `'${this.#filename}': waiting for ${seconds} s for ${describe()}`;
    process.emitWarning(message, { code: 'COWHERD_STALLED' });
  }

  #look(): void {
    const now = monotonicMs();
    for (const { sinceMs, describe } of this.#waits) this.tell(now - sinceMs, describe);
    if (this.#hasTold) this.#rest();
  }

  #rest(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

interface TimedOut {
  readonly sinceMs: number;
  lastMs: number;
}

/** Waits for shared words, of which those are looked at that nothing has ended for some time. */
export class WordWatch {
  readonly #watchdog: Watchdog;
  readonly #describe: (index: number) => string;
  readonly #timedOut = new Map<number, TimedOut>();

  /** @param describe says what somebody waits for who waits for the word of an index */
  constructor(watchdog: Watchdog, describe: (index: number) => string) {
    this.#watchdog = watchdog;
    this.#describe = describe;
  }

  /** Notes that nothing has happened to a word for `waitedMs` milliseconds, and is waited for. */
  timedOut(index: number, waitedMs: number): void {
    const now = monotonicMs();
    let wait = this.#timedOut.get(index);
    if (wait === undefined || now - wait.lastMs > waitedMs + pauseMs) {
      wait = { sinceMs: now - waitedMs, lastMs: now };
      this.#timedOut.set(index, wait);
    }
    wait.lastMs = now;
    this.#watchdog.tell(now - wait.sinceMs, () => this.#describe(index));
  }

  /** Notes that a word has changed. */
  woken(index: number): void {
    if (this.#timedOut.size > 0) this.#timedOut.delete(index);
  }
}
