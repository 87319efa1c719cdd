/** The commands there are, and the one that tells of them. */
import { breakpointCommands } from './breakpoints.js';
import {
  aioFlushCommand,
  allocCommand,
  discardCommand,
  flushCommand,
  infoCommand,
  lengthCommand,
  mapCommand,
  truncateCommand,
} from './disk-commands.js';
import { IoFailure } from './failure.js';
import { type IoCommand, usageLine } from './io-command.js';
import { closeCommand, openCommand, reopenCommand } from './opening-commands.js';
import {
  abortCommand,
  queueCommand,
  quitCommand,
  sigraiseCommand,
  sleepCommand,
} from './program-commands.js';
import { aioReadCommand, readCommand, readvCommand } from './reads.js';
import { aioWriteCommand, writeCommand, writevCommand } from './writes.js';

const helpCommand: IoCommand = {
  name: 'help',
  alias: '?',
  form: '[command]',
  summary: 'help for one or all commands',
  most: 1,
  isFree: true,
  async run({ operands }, exerciser) {
    const [name] = operands as readonly [string?];
    const found = name === undefined ? undefined : findIoCommand(name);
    if (name !== undefined && found === undefined) {
      throw new IoFailure(`command ${name} not found`);
    }
    const all = found === undefined ? ioCommands : [found];
    const lines = all.map((command) => `${usageLine(command)}\n`).join('');
    const more = found === undefined ? "\nUse 'help commandname' for extended help.\n" : '';
    await exerciser.print(`${lines}${more}`);
  },
};

/** In the order in which `help` lists them. */
const ioCommands: readonly IoCommand[] = [
  abortCommand,
  aioFlushCommand,
  aioReadCommand,
  aioWriteCommand,
  allocCommand,
  ...breakpointCommands,
  closeCommand,
  discardCommand,
  flushCommand,
  helpCommand,
  infoCommand,
  lengthCommand,
  mapCommand,
  openCommand,
  queueCommand,
  quitCommand,
  readCommand,
  readvCommand,
  reopenCommand,
  sigraiseCommand,
  sleepCommand,
  truncateCommand,
  writeCommand,
  writevCommand,
].sort((one, other) => (one.name < other.name ? -1 : 1));

/** The command of a name, or of a short one. */
export function findIoCommand(name: string): IoCommand | undefined {
  return ioCommands.find((command) => command.name === name || command.alias === name);
}
