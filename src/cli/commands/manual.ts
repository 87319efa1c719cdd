/** The page of the manual, in the language of man(7), from what the commands say of themselves. */
import { formatNames } from '../../image/names/formats.js';
import {
  type OptionGroup,
  fileOptionGroups,
  filterGroups,
  formatOptionGroups,
} from '../../image/names/option-help.js';
import type { OptionSpec } from '../options/options.js';
import type { Command } from './command.js';

/** The page of all commands. */
export function manualPage(commands: readonly Command[]): string {
  const parts = [
    '.TH COWHERD 1 "" cowherd "User Commands"\n',
    '.SH NAME\ncowherd \\- makes, reads, checks, converts and serves disk images\n',
    '.SH SYNOPSIS\n.B cowherd\n[\\fB\\-\\-help\\fR | \\fB\\-\\-version\\fR] \\fICOMMAND\\fR [\\fIoptions\\fR] ...\n',
    '.SH DESCRIPTION\n',
    'Commands, options, texts and exit codes are those of qemu\\-img(1); a link named qemu\\-img to the\n',
    'program takes its place, and one named qemu\\-io is its command io alone. Formats:\n',
    `${escaped(formatNames().join(', '))}.\n`,
    '.SH COMMANDS\n',
    ...commands.map(commandSection),
    groupSection('OPTIONS OF IMAGES', formatOptionGroups()),
    groupSection('OPTIONS OF FILES', fileOptionGroups()),
    groupSection('FILTERS OVER FILES', filterGroups()),
    '.SH EXIT STATUS\n0 if all went well, 1 if not; \\fBcheck\\fR and \\fBcompare\\fR have more, as ',
    'qemu\\-img has.\n',
    '.SH SEE ALSO\n.BR qemu\\-img (1),\n.BR qemu\\-io (1),\n.BR qemu\\-nbd (8)\n',
  ];
  return parts.join('');
}

function commandSection({ name, summary, operands, options, examples = [] }: Command): string {
  const shown = examples.map((example) => `.PP\n.EX\ncowherd ${escaped(example)}\n.EE\n`).join('');
  const list = Object.values(options).map(optionEntry).join('');
  const head = `.SS "cowherd ${name} [\\fIoptions\\fP] ${escaped(operands)}"\n`;
  return `${head}${escaped(summary)}.\n${list}${shown}`;
}

function optionEntry({ short, long, argument, optional, help }: OptionSpec): string {
  const value = argument === undefined ? '' : `\\fI${escaped(argument)}\\fR`;
  const forms: string[] = [];
  const apart = value === '' || optional === true ? '' : ` ${value}`;
  if (short !== undefined) forms.push(`\\fB\\-${short}\\fR${long === undefined ? apart : ''}`);
  if (long !== undefined) {
    const tail = value !== '' && optional === true ? `[=${value}]` : apart;
    forms.push(`\\fB\\-\\-${escaped(long)}\\fR${tail}`);
  }
  return `.TP\n${forms.join(', ')}\n${escaped(help)}\n`;
}

function groupSection(title: string, groups: readonly OptionGroup[]): string {
  const parts = groups.map(({ name, help = '', options }) => {
    const list = options.map(
      (option) =>
        `.TP\n\\fB${escaped(option.name)}\\fR=\\fI${escaped(option.form)}\\fR\n${escaped(option.help)}\n`,
    );
    return `.SS ${escaped(name)}\n${help === '' ? '' : `${escaped(help)}\n`}${list.join('')}`;
  });
  return `.SH "${title}"\n${parts.join('')}`;
}

/** Text in which nothing is taken for an instruction. */
function escaped(text: string): string {
  const code = (letter: string): string =>
    `\\[u${letter.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}]`;
  const safe = text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('"', '\\(dq')
    .replaceAll(/[^ -~]/gu, code);
  return /^[.']/.test(safe) ? `\\&${safe}` : safe;
}
