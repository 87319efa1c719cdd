/** What an image is to be from now on, as `-o` of `amend` gives it. */
import type { AmendOptions, PasswordChange } from '../../image/api/options.js';
import type { ImageFormat } from '../../image/api/reports.js';
import { type CreateOption, createOptionsOf } from '../../image/names/formats.js';
import { CliError } from '../process/cli-error.js';
import { CreateOptionValues, normalise, optionLines, valueOf } from './create-options.js';
import { parseOptionList } from './option-list.js';
import type { Secrets } from './secrets.js';

/** The text that `-o help` prints. @throws CliError for a format whose images cannot be amended */
export function amendOptionsHelp(format: ImageFormat): string {
  return [`Amend options for '${format}':\n`, ...optionLines(amendableOptions(format))].join('');
}

/**
 * The options of a list, as the library takes them.
 *
 * @param secrets that they may mean by their ids
 * @throws CliError for a format whose images cannot be amended, an unknown name or a value of the wrong type
 */
export function parseAmendOptions(
  format: ImageFormat,
  list: string,
  secrets: Secrets,
): AmendOptions {
  const options = amendableOptions(format);
  const changes: Partial<Record<keyof AmendOptions, unknown>> = {};
  const encrypt: Partial<Record<string, unknown>> = {};
  for (const { name, value } of parseOptionList(list)) {
    const option = options.find((each) => each.name === name);
    if (option === undefined) throw unknownOption(format, name, list);
    const text = normalise(option, value);
    // What a level may be is told by the image.
    const given = option.key === 'compat' ? text : valueOf(option, text);
    const [group, member] = option.key.split('.') as [keyof AmendOptions, string?];
    if (member === undefined) changes[group] = given;
    else encrypt[member] = given;
  }
  // As QEMU's tools have it, a size of 0 is none.
  if (changes.size === 0) delete changes.size;
  if (Object.keys(encrypt).length > 0) changes.encrypt = withSecrets(encrypt, secrets);
  return changes as AmendOptions;
}

/** A change of passwords with those that it means by their ids. */
function withSecrets(change: PasswordChange, secrets: Secrets): PasswordChange {
  const { newKeySecret, oldKeySecret } = change;
  return {
    ...change,
    newSecret: secretNamed(newKeySecret, secrets),
    oldSecret: secretNamed(oldKeySecret, secrets),
  };
}

function secretNamed(id: string | undefined, secrets: Secrets): Uint8Array | string | undefined {
  return id !== undefined && Object.hasOwn(secrets, id) ? secrets[id] : undefined;
}

function amendableOptions(format: ImageFormat): readonly CreateOption[] {
  const { options: all, amendOptions = [] } = createOptionsOf(format);
  const options = [...amendOptions, ...all.filter(({ isAmendable }) => isAmendable)];
  if (options.length > 0) return options;
  throw new CliError(`Format driver '${format}' does not support option amendment`);
}

/** What is wrong with an option that cannot be changed: if it can be chosen for a new image, that is said too. */
function unknownOption(format: ImageFormat, name: string, list: string): CliError {
  const message = `Invalid parameter '${name}'`;
  try {
    new CreateOptionValues(format, list);
  } catch {
    return new CliError(message);
  }
  return new CliError(`${message}\nThis option is only supported for image creation`);
}
