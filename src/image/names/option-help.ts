/** The options of opening that there are, for help. */
import { formatNames, formatOpenOptions } from '../../format/registry.js';
import { filterList, shellName } from '../../storage/filters/registry.js';
import type { OpenOption } from '../../storage/open-option.js';
import { driverNames, fileOpenOptions } from '../../storage/registry.js';
import { commonOpenOptions } from './common-options.js';

/** One option. */
export interface OptionHelp {
  readonly name: string;
  /** What stands for its value: `SIZE`. */
  readonly form: string;
  /** One line. */
  readonly help: string;
}

/** The options of a format, a driver of files or a filter. */
export interface OptionGroup {
  readonly name: string;
  /** One line, where there is one. */
  readonly help?: string;
  readonly options: readonly OptionHelp[];
}

/** The options of every image and file, and those of each format. */
export function formatOptionGroups(): readonly OptionGroup[] {
  const every = { name: 'all images and files', options: seen(commonOpenOptions) };
  return [every, ...groupsOf(formatNames(), formatOpenOptions)];
}

/** The options of each driver of files. */
export function fileOptionGroups(): readonly OptionGroup[] {
  return groupsOf(driverNames(), fileOpenOptions);
}

/** The filters, and their options. */
export function filterGroups(): readonly OptionGroup[] {
  return filterList().map(({ name, help, options }) => ({
    name,
    help,
    options: Object.entries(options).map(([key, option]) => ({ ...option, name: shellName(key) })),
  }));
}

/** Those with the same options are one group; what changes nothing that can be seen is left out. */
function groupsOf(
  names: readonly string[],
  optionsOf: (name: string) => readonly OpenOption[],
): OptionGroup[] {
  const groups = new Map<readonly OpenOption[], string[]>();
  for (const name of names) {
    const options = optionsOf(name);
    if (options.length > 0) groups.set(options, [...(groups.get(options) ?? []), name]);
  }
  return [...groups].map(([options, joined]) => ({
    name: joined.join(', '),
    options: seen(options),
  }));
}

function seen(options: readonly OpenOption[]): OptionHelp[] {
  return options.filter(({ key }) => key !== undefined).map(helpOf);
}

const forms = { switch: 'on|off', size: 'SIZE', seconds: 'SECONDS', text: 'TEXT' } as const;

function helpOf({ name, type, help }: OpenOption): OptionHelp {
  return { name, form: typeof type === 'string' ? forms[type] : type.join('|'), help };
}
