/** The subcommands there are. */
import { benchCommand } from './bench.js';
import { checkCommand } from './check.js';
import type { Command } from './command.js';
import { compareCommand } from './compare.js';
import { convertCommand } from './convert.js';
import { createCommand } from './create.js';
import { infoCommand } from './info.js';
import { mapCommand } from './map.js';

/** In the order in which the help text lists them. */
export const commands: readonly Command[] = [
  benchCommand,
  checkCommand,
  compareCommand,
  convertCommand,
  createCommand,
  infoCommand,
  mapCommand,
];
