/** `cowherd help`: what the program, or a command of it, can do; as a page of the manual too. */
import { formatNames } from '../../image/names/formats.js';
import {
  type OptionGroup,
  fileOptionGroups,
  filterGroups,
  formatOptionGroups,
} from '../../image/names/option-help.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import { type Command, commandHelp } from './command.js';
import { manualPage } from './manual.js';

const options = {
  ...shared.helpOption,
  man: { long: 'man', help: 'print the page of the manual, in the language of man' },
} as const satisfies OptionSpecs<string>;

/** @param commands all there are */
export function helpCommand(commands: () => readonly Command[]): Command {
  return {
    name: 'help',
    summary: 'Tell what a command does, and its options',
    operands: '[COMMAND]',
    options,
    examples: ['help convert', 'help --man'],
    async run(words, session) {
      const line = parseCommandLine('help', options, words);
      const [name, ...more] = line.operands as readonly [string?, ...string[]];
      if (more.length > 0) throw usageError('help', 'Expecting one command');
      if (line.has('man')) {
        await session.print(manualPage(commands()));
        return 0;
      }
      const command = commands().find((each) => each.name === name);
      if (name !== undefined && command === undefined) {
        throw new CliError(`Command not found: ${name}`, { helpOf: '' });
      }
      await session.print(
        command === undefined
          ? programHelp(commands(), session.name)
          : commandHelp(command, session.name),
      );
      return 0;
    },
  };
}

/** The help text of the program. */
export function programHelp(commands: readonly Command[], program: string): string {
  const list = commands.map(({ name, summary }) => `  ${name.padEnd(10)} ${summary}\n`).join('');
  return `Usage: ${program} [--help | --version] COMMAND [options] ...

Makes, reads, checks and converts disk images.
Formats: ${formatNames().join(' ')}

Commands (${program} COMMAND --help tells more):
${list}
Options of images (--image-opts driver=FORMAT,OPTION=...,file.filename=FILE; as json:{...} too):
${groupHelp(formatOptionGroups())}
Options of files (file.driver=DRIVER,file.OPTION=...):
${groupHelp(fileOptionGroups())}
Filters over files (file.driver=FILTER,file.OPTION=...,file.file.filename=FILE):
${groupHelp(filterGroups())}`;
}

/** Groups of options of opening. */
function groupHelp(groups: readonly OptionGroup[]): string {
  const lines = groups.flatMap(({ name, help = '', options: own }) => [
    `  ${name.padEnd(9)} ${help}`.trimEnd() + '\n',
    ...own.map((option) => `    ${`${option.name}=${option.form}`.padEnd(30)} ${option.help}\n`),
  ]);
  return lines.join('');
}
