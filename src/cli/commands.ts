/** The subcommands there are. */
import { amendCommand } from './commands/amend.js';
import { benchCommand } from './commands/bench.js';
import { bitmapCommand } from './commands/bitmap.js';
import { checkCommand } from './commands/check.js';
import type { Command } from './commands/command.js';
import { commitCommand } from './commands/commit.js';
import { compareCommand } from './commands/compare.js';
import { completionCommand } from './commands/completion.js';
import { convertCommand } from './commands/convert.js';
import { createCommand } from './commands/create.js';
import { ddCommand } from './commands/dd.js';
import { helpCommand } from './commands/help.js';
import { infoCommand } from './commands/info.js';
import { ioCommand } from './commands/io.js';
import { mapCommand } from './commands/map.js';
import { measureCommand } from './commands/measure.js';
import { mountCommand } from './commands/mount.js';
import { rebaseCommand } from './commands/rebase.js';
import { resizeCommand } from './commands/resize.js';
import { serveCommand } from './commands/serve.js';
import { snapshotCommand } from './commands/snapshot.js';

/** In the order in which the help text lists them. */
export const commands: readonly Command[] = [
  amendCommand,
  benchCommand,
  bitmapCommand,
  checkCommand,
  commitCommand,
  compareCommand,
  convertCommand,
  createCommand,
  ddCommand,
  infoCommand,
  ioCommand,
  mapCommand,
  measureCommand,
  mountCommand,
  rebaseCommand,
  resizeCommand,
  serveCommand,
  snapshotCommand,
  completionCommand(() => commands),
  helpCommand(() => commands),
];
