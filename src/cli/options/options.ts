/**
 * Command line options with the conventions of GNU getopt_long, which qemu-img has: short options
 * combine and take arguments attached or apart, long ones may be shortened while unambiguous,
 * operands may stand anywhere, `--` ends the options.
 */
import { CliError } from '../process/cli-error.js';

/** One option of a command. */
export interface OptionSpec {
  readonly short?: string;
  readonly long?: string;
  /** Other long names: those that versions of qemu-img use in turn. */
  readonly aliases?: readonly string[];
  /** Name of the argument in the help text; without it the option takes none. */
  readonly argument?: string;
  /** The argument may be left out; then it can only be given with `=`. */
  readonly optional?: true;
  readonly help: string;
}

/** The options of a command by the names its code uses. */
export type OptionSpecs<Key extends string> = Readonly<Record<Key, OptionSpec>>;

interface Occurrence<Key> {
  readonly key: Key;
  readonly value: string | undefined;
}

/** What a command line said. */
export class ParsedCommandLine<Key extends string> {
  constructor(
    private readonly occurrences: readonly Occurrence<Key>[],
    /** What is no option, in order. */
    readonly operands: readonly string[],
  ) {}

  /** Whether the option was given. */
  has(key: Key): boolean {
    return this.occurrences.some((occurrence) => occurrence.key === key);
  }

  /** How often the option was given. */
  count(key: Key): number {
    return this.occurrences.filter((occurrence) => occurrence.key === key).length;
  }

  /** The argument of the option's last occurrence, undefined if not given or without one. */
  last(key: Key): string | undefined {
    return this.occurrences.findLast((occurrence) => occurrence.key === key)?.value;
  }

  /** Those of some options that were given, each as often as it was, in their order. */
  among<Chosen extends Key>(
    keys: readonly Chosen[],
  ): readonly { readonly key: Chosen; readonly value: string | undefined }[] {
    return this.occurrences.flatMap(({ key, value }) => {
      const chosen = keys.find((each) => each === key);
      return chosen === undefined ? [] : [{ key: chosen, value }];
    });
  }

  /** The arguments of all occurrences of the option. */
  all(key: Key): readonly string[] {
    return this.occurrences.flatMap((occurrence) =>
      occurrence.key === key && occurrence.value !== undefined ? [occurrence.value] : [],
    );
  }
}

/**
 * Parses the words after a command's name (an empty name stands for the program itself).
 * Parsing ends at an option `help`, whatever follows, and with `stopsAtOperand` at the first operand.
 *
 * @throws CliError for an option that does not exist, or with an argument too few or too many
 */
export function parseCommandLine<Key extends string>(
  command: string,
  specs: OptionSpecs<Key>,
  words: readonly string[],
  stopsAtOperand = false,
): ParsedCommandLine<Key> {
  const occurrences: Occurrence<Key>[] = [];
  const operands: string[] = [];
  const rest = [...words];
  const stopAtOperand = stopsAtOperand || process.env['POSIXLY_CORRECT'] !== undefined;
  while (rest.length > 0 && !occurrences.some(({ key }) => key === 'help')) {
    const word = rest.shift()!;
    if (word === '--') {
      operands.push(...rest.splice(0));
    } else if (word.startsWith('--')) {
      occurrences.push(parseLong(command, specs, word.slice(2), rest));
    } else if (word.startsWith('-') && word !== '-') {
      occurrences.push(...parseShort(command, specs, word.slice(1), rest));
    } else {
      operands.push(word);
      if (stopAtOperand) operands.push(...rest.splice(0));
    }
  }
  return new ParsedCommandLine(occurrences, operands);
}

function parseLong<Key extends string>(
  command: string,
  specs: OptionSpecs<Key>,
  text: string,
  rest: string[],
): Occurrence<Key> {
  const equals = text.indexOf('=');
  const name = equals === -1 ? text : text.slice(0, equals);
  const key = findLong(command, specs, name);
  const spec = specs[key];
  if (equals !== -1) {
    if (spec.argument === undefined) {
      throw refuse(command, `option '--${spec.long ?? name}' doesn't allow an argument`);
    }
    return { key, value: text.slice(equals + 1) };
  }
  if (spec.argument === undefined || spec.optional) return { key, value: undefined };
  const value = rest.shift();
  if (value === undefined) {
    throw refuse(command, `option '--${spec.long ?? name}' requires an argument`);
  }
  return { key, value };
}

function findLong<Key extends string>(command: string, specs: OptionSpecs<Key>, name: string): Key {
  const names = (Object.keys(specs) as Key[]).flatMap((key) => {
    const { long, aliases = [] }: OptionSpec = specs[key];
    return [...(long === undefined ? [] : [long]), ...aliases].map((text) => ({ key, text }));
  });
  const exact = names.find(({ text }) => text === name);
  if (exact !== undefined) return exact.key;
  const candidates = names.filter(({ text }) => text.startsWith(name));
  if (candidates.length === 0) throw refuse(command, `unrecognized option '--${name}'`);
  const [first, ...others] = candidates;
  if (others.every(({ key }) => key === first.key)) return first.key;
  const possibilities = candidates.map(({ text }) => `'--${text}'`).join(' ');
  throw refuse(command, `option '--${name}' is ambiguous; possibilities: ${possibilities}`);
}

function* parseShort<Key extends string>(
  command: string,
  specs: OptionSpecs<Key>,
  letters: string,
  rest: string[],
): Generator<Occurrence<Key>> {
  const keys = Object.keys(specs) as Key[];
  for (let index = 0; index < letters.length; index++) {
    const letter = letters[index];
    const key = keys.find((candidate) => specs[candidate].short === letter);
    if (key === undefined) throw refuse(command, `invalid option -- '${letter}'`);
    if (specs[key].argument === undefined || specs[key].optional) {
      yield { key, value: undefined };
      continue;
    }
    const attached = letters.slice(index + 1);
    const value = attached === '' ? rest.shift() : attached;
    if (value === undefined) throw refuse(command, `option requires an argument -- '${letter}'`);
    yield { key, value };
    return;
  }
}

function refuse(command: string, message: string): CliError {
  return new CliError(message, { command, helpOf: command });
}
