/**
 * Nodes that QEMU's users put over an image to try it: `copy-on-read`, and `blkdebug` as far as it shows here.
 * Its limits of requests are taken, and change nothing that a guest sees; of its events there are those of
 * copying on read.
 */
import { readFileSync } from 'node:fs';
import { hostPath } from '../../byte-names.js';
import { describeErrno, errnoName } from '../../system-errors.js';
import { escapeListValue, parseOptionList } from '../options/option-list.js';
import type { CliError } from '../process/cli-error.js';
import { CopyFault } from './copy-on-read.js';
import type { Opening } from './opening.js';
import { sectorBytes } from './numbers.js';

/** What stands over an image. */
export interface NodesAbove {
  /** How the image below them is opened. */
  readonly below: Opening;
  /** Copies into the image that fail. */
  readonly copyFault?: CopyFault;
}

const copyOnRead = 'copy-on-read';
const debug = 'blkdebug';
const copyEvent = 'cor_write';

const limits: readonly string[] = [
  ...['align', 'max-transfer', 'opt-write-zero', 'max-write-zero', 'opt-discard', 'max-discard'],
];

/**
 * Takes what stands over an image off the way it is to be opened.
 *
 * @param refuse makes the error of what cannot be done
 */
export function nodesAbove(opening: Opening, refuse: (why: string) => CliError): NodesAbove {
  const { list } = opening;
  if (list === undefined) return { below: opening };
  const values = new Map(parseOptionList(list).map(({ name, value }) => [name, value]));
  const driver = values.get('driver');
  if (driver === copyOnRead) {
    if (opening.readOnly) throw refuse('Block node is read-only');
    const below = { ...opening, copiesOnRead: true, list: listBelow(values, 'file.') };
    return nodesAbove(below, refuse);
  }
  if (driver !== debug) return { below: opening };
  const named = /^blkdebug:(.*?):(.*)$/s.exec(values.get('file.filename') ?? '');
  if (named !== null) values.set('file.filename', named[2]);
  const config = values.get('config') ?? named?.[1] ?? '';
  const copyFault = config === '' ? undefined : readFault(config, refuse);
  const unknown = [...values.keys()].find(
    (name) => !/^(?:driver|config|file\.filename|image\..*)$/.test(name) && !limits.includes(name),
  );
  if (unknown !== undefined) throw refuse(`the option '${unknown}' of ${debug} is not supported`);
  return {
    ...(copyFault && { copyFault }),
    below: { ...opening, list: listBelow(values, 'image.') },
  };
}

/** The list of what lies below a node, as its child of that name. */
function listBelow(values: ReadonlyMap<string, string>, prefix: string): string {
  const own = [...values].flatMap(([name, value]) => {
    // What the path says is the file of the image, whatever stands between.
    if (name === 'file.filename') return [`${name}=${escapeListValue(value)}`];
    if (!name.startsWith(prefix)) return [];
    return [`${name.slice(prefix.length)}=${escapeListValue(value)}`];
  });
  return own.join(',');
}

/** The fault that a file of rules asks for. @throws what `refuse` makes for a rule that is never met here */
function readFault(path: string, refuse: (why: string) => CliError): CopyFault | undefined {
  let text: string;
  try {
    text = readFileSync(hostPath(path), 'utf8');
  } catch (error) {
    const reason = describeErrno((error as NodeJS.ErrnoException).code ?? String(error));
    throw refuse(`Could not read blkdebug config file: ${path}: ${reason}`);
  }
  const rules = text.split(/^\[/m).slice(1);
  const faults = rules.map((rule) => {
    const kind = /^[\w-]+/.exec(rule)?.[0];
    const values = new Map(
      [...rule.matchAll(/^\s*([\w-]+)\s*=\s*"(.*)"\s*$/gm)].map(([, name, value]) => [name, value]),
    );
    const event = values.get('event');
    if (kind !== 'inject-error' || event !== copyEvent) {
      throw refuse(
        `the event '${event ?? ''}' of '${path}' is not supported, but for ${copyEvent}`,
      );
    }
    const sector = values.get('sector');
    const offset = sector === undefined ? undefined : Number(sector) * sectorBytes;
    return new CopyFault(offset, errnoName(Number(values.get('errno') ?? 5)));
  });
  return faults.at(0);
}
