/** What a subcommand is, and its help text. */
import type { OptionSpec, OptionSpecs } from '../options/options.js';
import type { Session } from '../process/session.js';

/** A subcommand of the program. */
export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** Operands as the first line of the help text names them. */
  readonly operands: string;
  readonly options: OptionSpecs<string>;
  /** The words that may be options, where others look like some; all of them if left out. */
  readonly optionWords?: (words: readonly string[]) => readonly string[];
  /** The name of a link to the program that is this command alone. */
  readonly link?: string;
  /** Whole examples for the help text, without the program's name. */
  readonly examples?: readonly string[];
  /**
   * Runs the command with the words after its name.
   *
   * @returns the exit code
   * @throws CliError for a failure to be reported
   */
  run(words: readonly string[], session: Session): Promise<number>;
}

/**
 * The help text of a command.
 *
 * @param program what the program calls itself
 */
export function commandHelp(
  { name, summary, operands, options, link, examples = [] }: Command,
  program: string,
): string {
  const isAlone = program === link;
  const called = isAlone ? program : `${program} ${name}`;
  const lines = Object.values(options).map(
    (spec) => `  ${optionForms(spec).join(', ')}\n      ${spec.help}\n`,
  );
  const shown = examples
    .map((example) => `  ${isAlone ? example.replace(name, program) : `${program} ${example}`}\n`)
    .join('');
  const tail = shown === '' ? '' : `\nExamples:\n${shown}`;
  return `Usage: ${called} [options] ${operands}\n\n${summary}.\n\nOptions:\n${lines.join('')}${tail}`;
}

function optionForms({ short, long, argument, optional }: OptionSpec): string[] {
  const value = argument === undefined || optional ? '' : ` ${argument}`;
  const tail = argument !== undefined && optional ? `[=${argument}]` : value;
  const forms: string[] = [];
  if (short !== undefined) forms.push(`-${short}${long === undefined ? value : ''}`);
  if (long !== undefined) forms.push(`--${long}${tail}`);
  return forms;
}
