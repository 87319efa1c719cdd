/** Shows how far a long command is: a line for people, lines of JSON for programs. */
import { writeSync } from 'node:fs';
import type { Progress } from '../image/api.js';
import { CliError } from './cli-error.js';
import { toFixedEven } from './decimal.js';
import type { Session } from './session.js';

/** What a command reports its progress to. */
export interface ProgressDisplay {
  /** Called as often as the command likes. */
  readonly update: (progress: Progress) => void;
  /** Called once, when the command has ended in whatever way. */
  readonly end: () => Promise<void>;
}

/** How progress is to be shown. */
export interface ProgressOptions {
  /** Whether the option was given, and its argument. */
  readonly wanted: boolean;
  readonly argument: string | undefined;
  readonly quiet: boolean;
  /** Percent that must have passed between two displays. */
  readonly stepPercent: number;
}

/**
 * The display that the options ask for. Without one, SIGUSR1 makes the program say on standard
 * error how far it is.
 *
 * @throws CliError for an argument that is not of the form `fd:N`
 */
export function progressDisplay(session: Session, options: ProgressOptions): ProgressDisplay {
  const { wanted, argument, quiet, stepPercent } = options;
  if (argument !== undefined) return new JsonLines(parseDescriptor(argument));
  if (wanted && !quiet) return new TerminalLine(session, stepPercent);
  return new OnSignal(session);
}

function parseDescriptor(argument: string): number {
  const match = /^fd:(\d{1,6})$/.exec(argument);
  if (!match) throw new CliError(`Invalid progress target: '${argument}'; expected fd:N`);
  return Number(match[1]);
}

function percentOf({ doneBytes, totalBytes }: Progress): number {
  return totalBytes === 0 ? 100 : (doneBytes / totalBytes) * 100;
}

function formatPercent(percent: number): string {
  return `    (${toFixedEven(percent, 2)}/100%)`;
}

/** One line on standard output that is written over and over. */
class TerminalLine implements ProgressDisplay {
  #shown = 0;
  /** Prints follow one another, and a failed one is met again by whoever prints next. */
  #printed: Promise<void>;

  constructor(
    private readonly session: Session,
    private readonly stepPercent: number,
  ) {
    this.#printed = this.session.print(`${formatPercent(0)}\r`).catch(() => undefined);
  }

  readonly update = (progress: Progress): void => {
    const percent = percentOf(progress);
    const reachedEnd = percent >= 100 && this.#shown < 100;
    if (percent - this.#shown < this.stepPercent && !reachedEnd) return;
    this.#shown = percent;
    this.#print(`${formatPercent(percent)}\r`);
  };

  readonly end = async (): Promise<void> => {
    this.#print('\n');
    await this.#printed;
  };

  #print(text: string): void {
    this.#printed = this.#printed.then(() => this.session.print(text)).catch(() => undefined);
  }
}

/** A line of JSON for every display, to a file descriptor that the caller opened. */
class JsonLines implements ProgressDisplay {
  #lastMs = 0;
  #last: Progress | undefined;

  constructor(private readonly descriptor: number) {}

  readonly update = (progress: Progress): void => {
    this.#last = progress;
    const nowMs = performance.now();
    if (nowMs - this.#lastMs < 100) return;
    this.#lastMs = nowMs;
    this.#write(progress);
  };

  readonly end = (): Promise<void> => {
    if (this.#last !== undefined) this.#write(this.#last);
    return Promise.resolve();
  };

  #write({ doneBytes, totalBytes }: Progress): void {
    try {
      writeSync(this.descriptor, `${JSON.stringify({ doneBytes, totalBytes })}\n`);
    } catch (error) {
      // A full pipe loses a line and a closed one all further lines; neither stops the work.
      if ((error as NodeJS.ErrnoException).code === 'EBADF') {
        throw new CliError(`File descriptor ${this.descriptor} for progress is not open`);
      }
    }
  }
}

/** Silent, except when asked by SIGUSR1. */
class OnSignal implements ProgressDisplay {
  #percent = 0;
  readonly #show = (): void => {
    this.session.complain(`${formatPercent(this.#percent)}\n`);
  };

  constructor(private readonly session: Session) {
    process.on('SIGUSR1', this.#show);
  }

  readonly update = (progress: Progress): void => {
    this.#percent = percentOf(progress);
  };

  readonly end = (): Promise<void> => {
    process.off('SIGUSR1', this.#show);
    return Promise.resolve();
  };
}
