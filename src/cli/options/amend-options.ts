/** What an image is to be from now on, as `-o` of `amend` gives it. */
import type { AmendOptions } from '../../image/api/options.js';
import type { ImageFormat } from '../../image/api/reports.js';
import { type CreateOption, createOptionsOf } from '../../image/names/formats.js';
import { CliError } from '../process/cli-error.js';
import { CreateOptionValues, normalise, optionLines, valueOf } from './create-options.js';
import { parseOptionList } from './option-list.js';

/** The text that `-o help` prints. @throws CliError for a format whose images cannot be amended */
export function amendOptionsHelp(format: ImageFormat): string {
  return [`Amend options for '${format}':\n`, ...optionLines(amendableOptions(format))].join('');
}

/**
 * The options of a list, as the library takes them.
 *
 * @throws CliError for a format whose images cannot be amended, an unknown name or a value of the wrong type
 */
export function parseAmendOptions(format: ImageFormat, list: string): AmendOptions {
  const options = amendableOptions(format);
  const changes: Partial<Record<keyof AmendOptions, unknown>> = {};
  for (const { name, value } of parseOptionList(list)) {
    const option = options.find((each) => each.name === name);
    if (option === undefined) throw unknownOption(format, name, list);
    const text = normalise(option, value);
    // What a level may be is told by the image.
    const given = option.key === 'compat' ? text : valueOf(option, text);
    changes[option.key as keyof AmendOptions] = given;
  }
  // As QEMU's tools have it, a size of 0 is none.
  if (changes.size === 0) delete changes.size;
  return changes as AmendOptions;
}

function amendableOptions(format: ImageFormat): readonly CreateOption[] {
  const options = createOptionsOf(format).options.filter(({ isAmendable }) => isAmendable);
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
