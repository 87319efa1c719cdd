/** Shows how far a long command is: a line for people, lines of JSON for programs. */
import { constants, readFileSync, readdirSync, readlinkSync, writeSync } from 'node:fs';
import type { Progress } from '../../image/api/long-operation.js';
import { CliError } from '../process/cli-error.js';
import { toFixedEven } from './decimal.js';
import type { Session } from '../process/session.js';

/** What a command reports its progress to. */
export interface ProgressDisplay {
  /** Whether nothing is shown unless somebody asks, and about is near enough. */
  readonly onDemand: boolean;
  /** Called as often as the command likes. */
  readonly update: (progress: Progress) => void;
  /** Called when everything is done, by commands whose line then says so once more. */
  readonly finish: () => void;
  /** Called once, when the command has ended in whatever way. */
  readonly end: () => Promise<void>;
}

/** How progress is to be shown. */
export interface ProgressOptions {
  /** Whether the option was given, and its argument. */
  readonly wanted: boolean;
  readonly argument: string | undefined;
  readonly quiet: boolean;
  /** Whether the line for people goes to standard error, since standard output takes the disk. */
  readonly onErrors?: boolean;
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
  const { wanted, argument, quiet, stepPercent, onErrors = false } = options;
  if (argument !== undefined) return new JsonLines(session, parseDescriptor(argument));
  if (wanted && !quiet) return new TerminalLine(session, stepPercent, onErrors);
  return new OnSignal(session);
}

function parseDescriptor(argument: string): number {
  const match = /^fd:(\d{1,6})$/.exec(argument);
  if (!match) throw new CliError(`Invalid progress target: '${argument}'; expected fd:N`);
  const descriptor = Number(match[1]);
  if (isOpenForWriting(descriptor) && !isNodes(descriptor)) return descriptor;
  throw new CliError(`File descriptor ${descriptor} for progress is not open for writing`);
}

function isOpenForWriting(descriptor: number): boolean {
  try {
    writeSync(descriptor, new Uint8Array(0));
    return true;
  } catch (error) {
    // A pipe that is full at the moment, or has no reader, takes nothing of nothing.
    return ['EAGAIN', 'EPIPE'].includes((error as NodeJS.ErrnoException).code ?? '');
  }
}

/**
 * Whether a descriptor is one that Node opened for itself: events, or a pipe of which it holds both ends.
 * Who wrote to it would break the program.
 */
function isNodes(descriptor: number): boolean {
  if (descriptor <= 2) return false;
  try {
    const targetOf = (name: string): string => readlinkSync(`/proc/self/fd/${name}`);
    const target = targetOf(String(descriptor));
    if (target.startsWith('anon_inode:')) return true;
    if (!target.startsWith('pipe:')) return false;
    return readdirSync('/proc/self/fd').some((name) => {
      try {
        return Number(name) > 2 && targetOf(name) === target && isReadOnly(name);
      } catch {
        // The one that read the folder is closed by now.
        return false;
      }
    });
  } catch {
    return false;
  }
}

function isReadOnly(descriptor: string): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(
    readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'),
  );
  return flags !== null && (parseInt(flags[1], 8) & (constants.O_WRONLY | constants.O_RDWR)) === 0;
}

function percentOf({ doneBytes, totalBytes }: Progress): number {
  return totalBytes === 0 ? 100 : (doneBytes / totalBytes) * 100;
}

function formatPercent(percent: number): string {
  return `    (${toFixedEven(percent, 2)}/100%)`;
}

/** One line, on standard output unless that is the disk's, that is written over and over. */
class TerminalLine implements ProgressDisplay {
  readonly onDemand = false;
  #shown = 0;
  #percent = 0;
  /** Prints follow one another, and a failed one is met again by whoever prints next. */
  #printed: Promise<void> = Promise.resolve();

  constructor(
    private readonly session: Session,
    private readonly stepPercent: number,
    private readonly onErrors: boolean,
  ) {
    this.#print(`${formatPercent(0)}\r`);
    session.onStatusAsked = () => {
      this.#print(`${formatPercent(this.#percent)}\r`);
    };
  }

  readonly update = (progress: Progress): void => {
    const percent = percentOf(progress);
    this.#percent = percent;
    if (progress.totalBytes === 0) return;
    // The end is shown each time it is told, as qemu-img does, and the begin, and where there is more than was known.
    const isStep = percent - this.#shown > this.stepPercent || percent < this.#shown;
    if (!isStep && percent < 100 && percent > 0) return;
    this.#shown = percent;
    this.#print(`${formatPercent(percent)}\r`);
  };

  readonly finish = (): void => {
    this.#print(`${formatPercent(100)}\r`);
  };

  readonly end = async (): Promise<void> => {
    this.session.onStatusAsked = undefined;
    this.#print('\n');
    await this.#printed;
  };

  #print(text: string): void {
    if (this.onErrors) {
      this.session.complain(text);
      return;
    }
    const print = async (): Promise<void> => {
      await this.session.print(text);
      await this.session.flush();
    };
    this.#printed = this.#printed.then(print).catch(() => undefined);
  }
}

/** A line of JSON for every display, to a file descriptor that the caller opened. */
class JsonLines implements ProgressDisplay {
  readonly onDemand = false;
  #lastMs = 0;
  #last: Progress | undefined;

  constructor(
    private readonly session: Session,
    private readonly descriptor: number,
  ) {
    session.onStatusAsked = () => {
      if (this.#last !== undefined) this.#write(this.#last);
    };
  }

  readonly update = (progress: Progress): void => {
    this.#last = progress;
    const nowMs = performance.now();
    if (nowMs - this.#lastMs < 100) return;
    this.#lastMs = nowMs;
    this.#write(progress);
  };

  readonly finish = (): void => undefined;

  readonly end = (): Promise<void> => {
    this.session.onStatusAsked = undefined;
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
  readonly onDemand = true;
  #percent = 0;
  readonly #show = (): void => {
    this.session.complain(`${formatPercent(this.#percent)}\n`);
  };

  constructor(private readonly session: Session) {
    session.onStatusAsked = this.#show;
  }

  readonly update = (progress: Progress): void => {
    this.#percent = percentOf(progress);
  };

  readonly finish = (): void => undefined;

  readonly end = (): Promise<void> => {
    this.session.onStatusAsked = undefined;
    return Promise.resolve();
  };
}
