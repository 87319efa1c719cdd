/** `cowherd snapshot`: lists internal snapshots, takes them, goes back to them and gives them up. */
import { CowherdError } from '../../errors.js';
import type { Image } from '../../image/api/image.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { Session } from '../process/session.js';
import { parseImageName } from '../options/image-name.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import * as shared from '../options/shared-options.js';
import { snapshotTable } from '../text/info-human.js';
import type { Command } from './command.js';
import { openNamed, tellingFindings } from './open.js';

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  ...shared.quietOption,
  forceShare: shared.readerOptions.forceShare,
  ...shared.writerOptions,
  list: { short: 'l', long: 'list', help: 'list the snapshots; done if nothing else is asked for' },
  create: {
    short: 'c',
    long: 'create',
    argument: 'SNAPSHOT',
    help: 'take a snapshot of that name',
  },
  apply: {
    short: 'a',
    long: 'apply',
    argument: 'SNAPSHOT',
    help: 'have the disk be what it was then: of that id, or else that name',
  },
  delete: {
    short: 'd',
    long: 'delete',
    argument: 'SNAPSHOT',
    help: 'give up the first snapshot of that name',
  },
} as const satisfies OptionSpecs<string>;

const actions = ['list', 'create', 'apply', 'delete'] as const;
type Action = (typeof actions)[number];

/** The command. */
export const snapshotCommand: Command = {
  name: 'snapshot',
  summary: 'List, take, apply or delete internal snapshots',
  operands: 'IMAGE',
  options,
  examples: [
    'snapshot -c before-upgrade disk.qcow2',
    'snapshot -l disk.qcow2',
    'snapshot -a before-upgrade disk.qcow2',
    'snapshot -d before-upgrade disk.qcow2',
  ],
  async run(words, session) {
    const line = parseCommandLine('snapshot', options, words);
    const given = actions.flatMap((action): readonly Action[] =>
      action === 'list' && line.has(action) ? [action] : line.all(action).map(() => action),
    );
    if (given.length > 1) throw usageError('snapshot', "Cannot mix '-l', '-a', '-c', '-d'");
    if (line.operands.length !== 1) throw usageError('snapshot', 'Expecting one image file name');
    const action = given.at(0) ?? 'list';
    const name = parseImageName(line.operands[0], {
      format: line.last('format'),
      objects: readObjects(line.all('object')),
      imageOpts: line.has('imageOpts'),
      forWriting: action !== 'list',
    });
    await using image = await openNamed(name, {
      signal: session.signal,
      ...tellingFindings(session),
      aio: shared.parseAio(line.last('aio')),
      readOnly: action === 'list',
      forceShare: line.has('forceShare'),
    });
    if (action === 'list') await list(image, session);
    else await change(image, action, line.last(action)!, session);
    return 0;
  },
};

async function list(image: Image, session: Session): Promise<void> {
  const { snapshots } = await image.info();
  if (snapshots.length === 0) return;
  await session.print(`Snapshot list:\n${snapshotTable(snapshots).join('\n')}\n`);
}

async function change(
  image: Image,
  action: Exclude<Action, 'list'>,
  name: string,
  { signal }: Session,
): Promise<void> {
  try {
    if (action === 'create') await image.snapshots.create(name, { signal });
    else if (action === 'apply') await image.snapshots.apply(name, { signal });
    else await image.snapshots.delete({ name }, { signal });
  } catch (error) {
    if (signal.aborted || !(error instanceof CowherdError)) throw error;
    throw new CliError(`Could not ${action} snapshot '${name}': ${reasonOf(error, action)}`, {
      cause: error,
    });
  }
}

/** Why it could not, in qemu-img's words where it has some. */
function reasonOf(error: CowherdError, action: Action): string {
  const { code, operation, reason, why = error.message } = error;
  if (code === 'ERR_COWHERD_NOT_FOUND') {
    return action === 'apply'
      ? 'Failed to load snapshot: No such file or directory'
      : 'snapshot not found';
  }
  if (code !== 'ERR_COWHERD_UNSUPPORTED' || reason === undefined) return why;
  if (action === 'create') return reason;
  if (action === 'delete') return 'snapshot not found';
  return operation === 'allocate' ? `Failed to load snapshot: ${reason}` : why;
}
