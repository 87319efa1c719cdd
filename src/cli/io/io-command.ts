/** What a command of the exerciser is, and how its words are read. */
import { CliError } from '../process/cli-error.js';
import type { OptionSpec } from '../options/options.js';
import { type ParsedCommandLine, parseCommandLine } from '../options/options.js';
import type { Exerciser } from './exerciser.js';
import { IoFailure } from './failure.js';

/** The words of a command: flags, and the others in order. */
export type IoWords = ParsedCommandLine<string>;

/** A command. */
export interface IoCommand {
  readonly name: string;
  readonly alias?: string;
  /** Letters of its flags as getopt(3) has them: a colon behind one that takes an argument. */
  readonly flags?: string;
  /** How flags and operands are shown. */
  readonly form: string;
  /** One line, in small letters. */
  readonly summary: string;
  /** How many words there may be behind the name, flags included. */
  readonly least?: number;
  readonly most?: number;
  /** How many of them may be no flags, where that is looked at. */
  readonly operands?: readonly [least: number, most: number];
  /** Whether it takes no image to be open; default false. */
  readonly isFree?: boolean;
  /** Whether it changes the image; default false. */
  readonly isChange?: boolean;
  /** @throws IoFailure, CliError */
  run(words: IoWords, exerciser: Exerciser): Promise<void> | void;
}

/** The line that shows how a command is given. */
export function usageLine({ name, form, summary }: IoCommand): string {
  return `${name} ${form} -- ${summary}`;
}

/** The words of a line. */
export function wordsOf(line: string): readonly string[] {
  return line.split(/[ \n]+/).filter((word) => word !== '');
}

/**
 * Runs a command.
 *
 * @param words those behind its name
 * @throws IoFailure, CliError
 */
export async function runIoCommand(
  command: IoCommand,
  words: readonly string[],
  exerciser: Exerciser,
): Promise<void> {
  if (command.isFree !== true) exerciser.requireDisk();
  checkCount(command, words.length);
  if (command.isChange === true && exerciser.image.readOnly) {
    throw new CliError('Block node is read-only');
  }
  await command.run(readWords(command, words, exerciser), exerciser);
}

function checkCount({ name, least = 0, most = 0 }: IoCommand, count: number): void {
  if (count >= least && count <= most) return;
  const expected =
    most === Infinity
      ? `at least ${least}`
      : least === most
        ? String(least)
        : `between ${least} and ${most}`;
  throw new IoFailure(
    `bad argument count ${count} to ${name}, expected ${expected} arguments`,
    'errors',
  );
}

function readWords(command: IoCommand, words: readonly string[], exerciser: Exerciser): IoWords {
  const { name, flags, operands: [least, most] = [0, Infinity] } = command;
  if (flags === undefined) return parseCommandLine('', {}, ['--', ...words]);
  let parsed: IoWords;
  try {
    parsed = parseCommandLine('', specsOf(flags), words);
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    exerciser.session.complain(`${name}: ${error.message}\n`);
    throw misused(command);
  }
  const { length } = parsed.operands;
  if (length >= least && length <= most) return parsed;
  throw misused(command);
}

/** The failure of a command that was given in a way it does not know. */
export function misused(command: IoCommand): IoFailure {
  return new IoFailure(usageLine(command));
}

function specsOf(flags: string): Record<string, OptionSpec> {
  const specs: Record<string, OptionSpec> = {};
  for (const [, letter, colon] of flags.matchAll(/(\w)(:?)/g)) {
    specs[letter] = { short: letter, help: '', ...(colon !== '' && { argument: 'VALUE' }) };
  }
  return specs;
}
