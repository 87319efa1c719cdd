/** What a running command touches of its surroundings: output, errors, cancellation. */
import type { Readable, Writable } from 'node:stream';

/** Thrown when whoever read our output has gone away; there is nobody left to tell. */
export class OutputClosed extends Error {
  override readonly name = 'OutputClosed';
}

/** Why a command was ended by a signal. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';

  /** @param exitCode what the program exits with */
  constructor(readonly exitCode: number) {
    super('Interrupted');
  }
}

/** One run of the program. */
export class Session {
  #outputClosed = false;
  readonly #controller = new AbortController();

  constructor(
    readonly stdin: Readable,
    readonly stdout: Writable,
    private readonly stderr: Writable,
  ) {
    stdout.on('error', () => {
      this.#outputClosed = true;
      this.#controller.abort(new OutputClosed());
    });
    stderr.on('error', () => undefined);
  }

  /** Aborted when the user interrupts the program or its output is gone. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends the running command early, and the program with that exit code. */
  interrupt(exitCode: number): void {
    this.#controller.abort(new Interrupted(exitCode));
  }

  /**
   * Prints to standard output, waiting until it has room for more.
   *
   * @throws OutputClosed if nobody reads it any more
   */
  async print(text: string | Uint8Array): Promise<void> {
    await new Promise<void>((resolve) => {
      if (this.#outputClosed) resolve();
      else {
        this.stdout.write(text, () => {
          resolve();
        });
      }
    });
    if (this.#outputClosed) throw new OutputClosed();
  }

  /** Prints lines to standard error as they are. */
  complain(lines: string): void {
    this.stderr.write(lines);
  }
}
