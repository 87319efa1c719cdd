/** The failures that the command line reports as text of its own, with the exit code that goes with them. */

/** How a failure is reported besides its text. */
export interface CliErrorDetails {
  /** Exit code of the program; default 1. */
  readonly exitCode?: number;
  /** The command whose help is pointed at, or an empty string for the program's own help. */
  readonly helpOf?: string;
  /** The command named in front of the message, as option parsing does it. */
  readonly command?: string;
  /** Said before it, in a line of its own. */
  readonly before?: string;
  /** What qemu-img says of it: said instead where the program goes by that name. */
  readonly asQemuImg?: string | undefined;
  readonly cause?: unknown;
}

/** A failure whose message is complete: it is printed after the program's name, nothing added. */
export class CliError extends Error {
  readonly exitCode: number;
  readonly helpOf: string | undefined;
  readonly command: string | undefined;
  readonly #before: string | undefined;
  readonly #asQemuImg: string | undefined;

  constructor(message: string, details: CliErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'CliError';
    this.exitCode = details.exitCode ?? 1;
    this.helpOf = details.helpOf;
    this.command = details.command;
    this.#before = details.before;
    this.#asQemuImg = details.asQemuImg;
  }

  /**
   * The lines for standard error.
   *
   * @param program what the program calls itself
   */
  report(program: string): string {
    const name = this.command ? `${program} ${this.command}` : program;
    const text = program === 'qemu-img' ? (this.#asQemuImg ?? this.message) : this.message;
    const texts = this.#before === undefined ? [text] : [this.#before, text];
    const lines = texts.map((line) => `${name}: ${adviceOf(line, program)}\n`).join('');
    if (this.helpOf === undefined) return lines;
    const command = this.helpOf === '' ? program : `${program} ${this.helpOf}`;
    return `${lines}Try '${command} --help' for more info\n`;
  }
}

/** A text in which the library tells people to run this program, under the name it was called by. */
export function adviceOf(text: string, program: string): string {
  return text.replaceAll(
    /(?<= (?:with |or |use '))cowherd(?= (?:check|convert|bitmap) )/g,
    program,
  );
}

/** A command line that cannot be understood. */
export function usageError(command: string, message: string): CliError {
  return new CliError(message, { helpOf: command });
}
