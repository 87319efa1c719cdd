/** What a running command touches of its surroundings: output, errors, cancellation. */
import type { Readable, Writable } from 'node:stream';
import { bytesOfName, hostPath } from '../../byte-names.js';
import { describeErrno } from '../../system-errors.js';

/** Thrown when whoever read our output has gone away; there is nobody left to tell. */
class OutputClosed extends Error {
  override readonly name = 'OutputClosed';
}

/** Thrown when standard output cannot be written to: what follows would be lost as well. */
export class OutputFailed extends Error {
  override readonly name = 'OutputFailed';

  constructor(cause: NodeJS.ErrnoException) {
    super(`write error: ${describeErrno(cause.code ?? cause.message)}`, { cause });
  }
}

/** Why a command was ended by a signal. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';

  /** @param exitCode what the program exits with */
  constructor(readonly exitCode: number) {
    super('Interrupted');
  }
}

/** Text is held back until there is so much of it, in bytes: as C's library does it. */
const heldBytes = 4096;

/** One run of the program. */
export class Session {
  /** Called when somebody asks, by SIGUSR1, how far the command is. */
  onStatusAsked: (() => void) | undefined;
  readonly #controller = new AbortController();
  #outputFailure: OutputClosed | OutputFailed | undefined;
  #held: Buffer = Buffer.alloc(0);

  /** @param name what the program calls itself in messages */
  constructor(
    readonly stdin: Readable & { readonly isTTY?: boolean },
    readonly stdout: Writable & { readonly isTTY?: boolean; readonly fd?: number },
    private readonly stderr: Writable,
    readonly name = 'cowherd',
  ) {
    stdout.on('error', (error) => {
      this.#noteFailure(error);
    });
    stderr.on('error', () => undefined);
  }

  /** Aborted when the user interrupts the program or its output is gone. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Why nothing can be printed any more. */
  get outputFailure(): OutputClosed | OutputFailed | undefined {
    return this.#outputFailure;
  }

  /** Ends the running command early, and the program with that exit code. */
  interrupt(exitCode: number): void {
    this.#controller.abort(new Interrupted(exitCode));
  }

  /**
   * Prints to standard output, waiting until it has room for more. Text that goes to no terminal is held
   * back, so that in one pipe errors come before it, as they do with qemu-img.
   *
   * @throws OutputClosed if nobody reads it any more, OutputFailed if it cannot be written
   */
  async print(text: string | Uint8Array): Promise<void> {
    if (typeof text === 'string') {
      this.#held = Buffer.concat([this.#held, bytesOfName(text)]);
      const isTerminal = this.stdout.isTTY === true;
      const due = isTerminal
        ? this.#held.length
        : this.#held.length - (this.#held.length % heldBytes);
      await this.#write(this.#held.subarray(0, due));
      return;
    }
    await this.flush();
    await this.#writeThrough(text);
  }

  /** Prints what is held back. @throws as `print` does */
  async flush(): Promise<void> {
    await this.#write(this.#held);
  }

  /** Takes note that standard output cannot be written to. @throws OutputClosed, OutputFailed */
  failOutput(error: NodeJS.ErrnoException): never {
    this.#noteFailure(error);
    throw this.#outputFailure ?? error;
  }

  /** Prints a warning to standard error. */
  warn(message: string): void {
    this.complain(`${this.name}: warning: ${message}\n`);
  }

  /** Prints lines to standard error as they are. */
  complain(lines: string): void {
    this.stderr.write(hostPath(lines));
  }

  /** Writes the begin of what is held back, and keeps the rest. */
  async #write(begin: Uint8Array): Promise<void> {
    this.#held = this.#held.subarray(begin.length);
    if (begin.length > 0 || this.#outputFailure !== undefined) await this.#writeThrough(begin);
  }

  #noteFailure(error: NodeJS.ErrnoException): void {
    if (this.#outputFailure !== undefined) return;
    this.#outputFailure = error.code === 'EPIPE' ? new OutputClosed() : new OutputFailed(error);
    this.#controller.abort(this.#outputFailure);
  }

  async #writeThrough(bytes: Uint8Array): Promise<void> {
    await new Promise<void>((resolve) => {
      if (this.#outputFailure !== undefined) resolve();
      else {
        this.stdout.write(bytes, (error) => {
          if (error) this.#noteFailure(error);
          resolve();
        });
      }
    });
    if (this.#outputFailure !== undefined) throw this.#outputFailure;
  }
}
