/** The program as a function: finds the subcommand, runs it, and says how it ended. */
import { readFileSync } from 'node:fs';
import { CowherdError } from '../errors.js';
import { packageFolder } from '../package-folder.js';
import { CliError } from './cli-error.js';
import { commandHelp } from './command.js';
import { commands } from './commands.js';
import type { OptionSpecs } from './options.js';
import { parseCommandLine } from './options.js';
import type { Session } from './session.js';
import { Interrupted } from './session.js';
import { helpOption } from './shared-options.js';

const options = {
  ...helpOption,
  version: { short: 'V', long: 'version', help: 'show the version and exit' },
} as const satisfies OptionSpecs<string>;

/** What a shell makes of a program that was ended by SIGPIPE. */
const outputClosedCode = 141;

/**
 * Runs the program.
 *
 * @param words its arguments, without its own name
 * @returns the exit code; failures were reported already
 */
export async function runProgram(words: readonly string[], session: Session): Promise<number> {
  try {
    return await dispatch(words, session);
  } catch (error) {
    return report(cause(error), session);
  }
}

async function dispatch(words: readonly string[], session: Session): Promise<number> {
  const line = parseCommandLine('', options, words, true);
  if (line.has('version')) {
    await session.print(`cowherd version ${version()}\n`);
    return 0;
  }
  if (line.has('help')) {
    await session.print(programHelp());
    return 0;
  }
  const [name, ...rest] = line.operands as readonly [string?, ...string[]];
  if (name === undefined) throw new CliError('Not enough arguments', { helpOf: '' });
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) throw new CliError(`Command not found: ${name}`, { helpOf: '' });
  if (parseCommandLine(name, command.options, rest).has('help')) {
    await session.print(commandHelp(command));
    return 0;
  }
  return await command.run(rest, session);
}

function version(): string {
  const packageFile = new URL('package.json', packageFolder);
  return (JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string }).version;
}

function programHelp(): string {
  const list = commands.map(({ name, summary }) => `  ${name.padEnd(9)} ${summary}\n`).join('');
  return `Usage: cowherd [--help | --version] COMMAND [options] ...

Makes, reads, checks and converts disk images in the formats qcow2 and raw.

Commands (cowherd COMMAND --help tells more):
${list}`;
}

/** What went wrong first, where closing what was open has then failed too. */
function cause(error: unknown): unknown {
  const isBoth = error instanceof Error && error.name === 'SuppressedError';
  return isBoth && 'suppressed' in error ? cause(error.suppressed) : error;
}

/** Says what went wrong, and returns the exit code that goes with it. */
function report(error: unknown, session: Session): number {
  if (session.signal.aborted) {
    const reason: unknown = session.signal.reason;
    if (!(reason instanceof Interrupted)) return outputClosedCode;
    const isTold = error instanceof CowherdError && error.code === 'ERR_COWHERD_ABORTED';
    session.complain(`cowherd: ${isTold ? error.message : reason.message}\n`);
    return reason.exitCode;
  }
  const below = error instanceof CliError ? error.cause : error;
  if (below instanceof CowherdError && below.damage !== undefined) {
    session.complain(
      `qcow2: Image is corrupt: ${below.damage}; further non-fatal corruption events will be suppressed\n`,
    );
  }
  if (error instanceof CliError) {
    session.complain(error.report());
    return error.exitCode;
  }
  if (error instanceof CowherdError) {
    session.complain(`cowherd: ${error.message}\n`);
    return 1;
  }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  session.complain(`cowherd: ${text}\n`);
  return 1;
}
