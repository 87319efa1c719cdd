/** `cowherd completion`: a script by which a shell completes commands, options and what they take. */
import { formatNames, isReadableFormat } from '../../image/names/formats.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { OptionSpec, OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import type { Command } from './command.js';

const options = { ...shared.helpOption } as const satisfies OptionSpecs<string>;

const writers: Readonly<Record<string, (commands: readonly Command[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** @param commands all there are */
export function completionCommand(commands: () => readonly Command[]): Command {
  return {
    name: 'completion',
    summary: 'Print a script by which bash, zsh or fish completes command lines',
    operands: 'bash|zsh|fish',
    options,
    examples: [
      'completion bash > ~/.local/share/bash-completion/completions/cowherd',
      'completion fish > ~/.config/fish/completions/cowherd.fish',
    ],
    async run(words, session) {
      const { operands } = parseCommandLine('completion', options, words);
      if (operands.length !== 1) throw usageError('completion', 'Expecting one shell');
      const [shell] = operands;
      if (!Object.hasOwn(writers, shell)) {
        throw new CliError(`Unknown shell '${shell}'; there are bash, zsh and fish`);
      }
      await session.print(writers[shell](commands()));
      return 0;
    },
  };
}

function bashScript(commands: readonly Command[]): string {
  const words = commands.map(({ name }) => name).join(' ');
  const values = commands.flatMap(({ name, options: own }) =>
    Object.values(own)
      .filter((spec) => valuesOf(spec).length > 0)
      .map((spec) => {
        const patterns = formsOf(spec).map((form) => `${name}:${form}`);
        return `    ${patterns.join('|')}) _cowherd_words "${valuesOf(spec).join(' ')}"; return;;\n`;
      }),
  );
  const forms = commands.map(
    ({ name, options: own }) =>
      `      ${name}) _cowherd_words "${Object.values(own).flatMap(formsOf).join(' ')}";;\n`,
  );
  return `# bash completion of cowherd
_cowherd_words() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$word")
}
_cowherd() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]}
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    _cowherd_words "${words} --help --version"
    return
  fi
  if [[ $word == -* ]]; then
    case \${COMP_WORDS[1]} in
${forms.join('')}    esac
    return
  fi
  case \${COMP_WORDS[1]}:$before in
${values.join('')}    help:*) _cowherd_words "${words}"; return;;
    completion:*) _cowherd_words "${Object.keys(writers).join(' ')}"; return;;
  esac
  mapfile -t COMPREPLY < <(compgen -f -- "$word")
}
complete -o filenames -F _cowherd cowherd
`;
}

function zshScript(commands: readonly Command[]): string {
  const list = commands.map(({ name, summary }) => `    ${quoted(`${name}:${summary}`)}\n`);
  const cases = commands.map(({ name, options: own }) => {
    const specs = Object.values(own).map((spec) => `      ${zshOption(spec)} \\\n`);
    return `    ${name}) _arguments -s \\\n${specs.join('')}      '*:${zshOperand(name)}';;\n`;
  });
  return `#compdef cowherd
_cowherd() {
  local -a commands=(
${list.join('')}  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
${cases.join('')}  esac
}
_cowherd "$@"
`;

  function zshOperand(name: string): string {
    if (name === 'help') return `command:(${commands.map((each) => each.name).join(' ')})`;
    if (name === 'completion') return `shell:(${Object.keys(writers).join(' ')})`;
    return 'image:_files';
  }
}

function zshOption(spec: OptionSpec): string {
  const forms = formsOf(spec);
  const help = spec.help.replaceAll(/[[\]:\\]/g, '\\$&');
  const values = valuesOf(spec);
  const action = values.length > 0 ? `(${values.join(' ')})` : '_files';
  const { argument = '', optional } = spec;
  const takes =
    argument === '' || optional === true ? '' : `:${argument.replaceAll(':', '\\:')}:${action}`;
  const tail = quoted(`[${help}]${takes}`);
  // As often as it may be given, and in either form.
  return forms.length === 1 ? `'*'${forms[0]}${tail}` : `'*'{${forms.join(',')}}${tail}`;
}

function fishScript(commands: readonly Command[]): string {
  const lines = ['# fish completion of cowherd'];
  for (const { name, summary, options: own } of commands) {
    lines.push(`complete -c cowherd -n __fish_use_subcommand -f -a ${name} -d ${quoted(summary)}`);
    for (const spec of Object.values(own)) {
      const { short, long, argument, optional, help } = spec;
      const values = valuesOf(spec);
      const parts = [
        'complete -c cowherd',
        `-n '__fish_seen_subcommand_from ${name}'`,
        ...(short === undefined ? [] : [`-s ${short}`]),
        ...(long === undefined ? [] : [`-l ${long}`]),
        ...(argument === undefined || optional === true ? [] : ['-r']),
        ...(values.length === 0 ? [] : [`-f -a ${quoted(values.join(' '))}`]),
        `-d ${quoted(help)}`,
      ];
      lines.push(parts.join(' '));
    }
  }
  const names = commands.map(({ name }) => name).join(' ');
  const shells = Object.keys(writers).join(' ');
  lines.push(`complete -c cowherd -n '__fish_seen_subcommand_from help' -f -a '${names}'`);
  lines.push(`complete -c cowherd -n '__fish_seen_subcommand_from completion' -f -a '${shells}'`);
  return `${lines.join('\n')}\n`;
}

/** The ways to write an option. */
function formsOf({ short, long }: OptionSpec): readonly string[] {
  return [
    ...(short === undefined ? [] : [`-${short}`]),
    ...(long === undefined ? [] : [`--${long}`]),
  ];
}

/** What an option takes, where that is one of a few words. */
function valuesOf({ argument = '' }: OptionSpec): readonly string[] {
  if (argument.includes('FORMAT')) return formatNames().filter(isReadableFormat);
  return /^[a-z0-9]+(\|[a-z0-9]+)+$/.test(argument) ? argument.split('|') : [];
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
