/** The program as a function: finds the subcommand, runs it, and says how it ended. */
import { readFileSync } from 'node:fs';
import { CowherdError } from '../errors.js';
import { packageFolder } from '../package-folder.js';
import { describeErrno } from '../system-errors.js';
import { CliError } from './process/cli-error.js';
import { damageText } from './text/failures.js';
import { type Command, commandHelp } from './commands/command.js';
import { programHelp } from './commands/help.js';
import { commands } from './commands.js';
import type { OptionSpecs } from './options/options.js';
import { parseCommandLine } from './options/options.js';
import type { Session } from './process/session.js';
import { Interrupted, OutputFailed } from './process/session.js';
import { takeTrace } from './options/trace.js';
import { helpOption } from './options/shared-options.js';

const options = {
  ...helpOption,
  version: { short: 'V', long: 'version', help: 'show the version and exit' },
  trace: { short: 'T', long: 'trace', argument: 'LIST', help: 'accepted; there are no events' },
} as const satisfies OptionSpecs<string>;

const ownName = 'cowherd';

/**
 * What the program calls itself: as QEMU's tools do, for whose users' scripts, where a link of such a name
 * leads to it.
 *
 * @param given the name that it was called by
 */
export function programName(given: string): string {
  return given === 'qemu-img' || commandOfLink(given) !== undefined ? given : ownName;
}

function commandOfLink(program: string): Command | undefined {
  return commands.find(({ link }) => link === program);
}

/** What a shell makes of a program that was ended by SIGPIPE. */
const outputClosedCode = 141;

/**
 * Runs the program.
 *
 * @param words its arguments, without its own name
 * @returns the exit code; failures were reported already
 */
export async function runProgram(words: readonly string[], session: Session): Promise<number> {
  let code: number;
  try {
    code = await dispatch(words, session);
  } catch (error) {
    code = report(cause(error), session);
  }
  try {
    // What was printed comes after what was wrong, as with C's library.
    await session.flush();
  } catch (error) {
    if (session.outputFailure === undefined || code === 0) return report(error, session);
  }
  return code;
}

async function dispatch(words: readonly string[], session: Session): Promise<number> {
  const alone = commandOfLink(session.name);
  if (alone !== undefined) return await runAlone(alone, words, session);
  const line = parseCommandLine('', options, words, true);
  if (line.has('version')) {
    await session.print(versionText(session.name));
    return 0;
  }
  if (line.has('help')) {
    await session.print(programHelp(commands, session.name));
    return 0;
  }
  for (const list of line.all('trace')) {
    const code = await takeTrace(list, session);
    if (code !== undefined) return code;
  }
  const [name, ...rest] = line.operands as readonly [string?, ...string[]];
  if (name === undefined) throw new CliError('Not enough arguments', { helpOf: '' });
  const command = commands.find((candidate) => candidate.name === name);
  if (command === undefined) throw new CliError(`Command not found: ${name}`, { helpOf: '' });
  const optionWords = command.optionWords?.(rest) ?? rest;
  if (parseCommandLine(name, command.options, optionWords).has('help')) {
    await session.print(commandHelp(command, session.name));
    return 0;
  }
  return await command.run(rest, session);
}

/** Runs a program that is one command. */
async function runAlone(
  command: Command,
  words: readonly string[],
  session: Session,
): Promise<number> {
  const line = parseCommandLine('', { ...command.options, ...options }, words);
  if (!line.has('help') && !line.has('version')) return await command.run(words, session);
  const text = line.has('help') ? commandHelp(command, session.name) : versionText(session.name);
  await session.print(text);
  return 0;
}

/** Our version; for who takes us for one of QEMU's tools, the version too whose options we take. */
function versionText(program: string): string {
  if (packageFolder === undefined) throw new CliError("The program's own package.json is missing");
  const packageFile = new URL('package.json', packageFolder);
  const { version } = JSON.parse(readFileSync(packageFile, 'utf8')) as { version: string };
  if (program === ownName) return `cowherd version ${version}\n`;
  return `${program} version 10.0 (cowherd ${version})\n`;
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
    if (reason instanceof OutputFailed) {
      session.complain(`${session.name}: ${reason.message}\n`);
      return 1;
    }
    if (!(reason instanceof Interrupted)) return outputClosedCode;
    const isTold = error instanceof CowherdError && error.code === 'ERR_COWHERD_ABORTED';
    session.complain(`${session.name}: ${isTold ? error.message : reason.message}\n`);
    return reason.exitCode;
  }
  const below = error instanceof CliError ? error.cause : error;
  const damage = below instanceof CowherdError ? damageText(below) : undefined;
  if (damage !== undefined) session.complain(`${damage}\n`);
  if (error instanceof CliError) {
    session.complain(error.report(session.name));
    return error.exitCode;
  }
  if (error instanceof CowherdError) {
    session.complain(`${session.name}: ${error.message}\n`);
    return 1;
  }
  const text = isSystemError(error)
    ? systemErrorText(error)
    : error instanceof Error
      ? (error.stack ?? error.message)
      : String(error);
  session.complain(`${session.name}: ${text}\n`);
  return 1;
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error && 'code' in error;
}

/** A failure of the system that is nobody's to explain: the working directory is gone, for one. */
function systemErrorText({ syscall = '', code = '' }: NodeJS.ErrnoException): string {
  const attempt = syscall === 'uv_cwd' ? 'Could not find the working directory' : syscall;
  return `${attempt}: ${describeErrno(code)}`;
}
