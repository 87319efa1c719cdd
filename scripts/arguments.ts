/** The arguments of developers' scripts: `--help` lists them, and a wrong one is a line, not a stack. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

type Options = NonNullable<ParseArgsConfig['options']>;

/**
 * The values of a script's options.
 *
 * @param about what the script does, for `--help`
 */
export function readArguments<const Given extends Options>(
  about: string,
  options: Given,
): ReturnType<typeof parseArgs<{ options: Given }>>['values'] {
  if (process.argv.slice(2).some((word) => word === '--help' || word === '-h')) {
    const lines = Object.entries(options).map(([name, { type, default: value }]) => {
      const given = value === undefined ? '' : `  (${String(value)})`;
      return `  --${name}${type === 'string' ? ' VALUE' : ''}${given}\n`;
    });
    process.stdout.write(`${about}\n\n${lines.join('')}`);
    process.exit(0);
  }
  try {
    return parseArgs<{ options: Given }>({ options }).values;
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  }
}
