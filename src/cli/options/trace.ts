/** `-T [enable=]PATTERN,events=FILE,file=FILE` as QEMU's tools take it: this program has none of QEMU's events. */
import { readFile } from 'node:fs/promises';
import { describeErrno } from '../../system-errors.js';
import { CliError } from '../process/cli-error.js';
import type { Session } from '../process/session.js';
import { parseOptionList } from './option-list.js';

const known = ['enable', 'events', 'file'];

/**
 * Warns of each event that is asked for by its name; a pattern may fit none.
 *
 * @returns the exit code where that is all: the list of events was asked for, which is empty, or a file of patterns
 *   cannot be read
 * @throws CliError for what is no such list
 */
export async function takeTrace(list: string, session: Session): Promise<number | undefined> {
  const [first, ...rest] = list.split(',');
  if (first === 'help' || first === '?') return 0;
  const isImplied = !first.includes('=');
  const items = parseOptionList(isImplied ? [`enable=${first}`, ...rest].join(',') : list);
  const unknown = items.find(({ name }) => !known.includes(name));
  if (unknown !== undefined) throw new CliError(`Invalid parameter '${unknown.name}'`);
  for (const { name, value } of items) {
    if (name === 'enable') warnOf(value, session.name, session);
    if (name === 'events' && !(await takeFile(value, session))) return 1;
  }
  return undefined;
}

/** Takes the patterns of a file, one a line. @returns whether it could be read */
async function takeFile(file: string, session: Session): Promise<boolean> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    session.complain(`${session.name}:${file}: ${describeErrno(code)}\n`);
    return false;
  }
  for (const [index, line] of text.split('\n').entries()) {
    if (line === '' || line.startsWith('#')) continue;
    warnOf(line, `${session.name}:${file}:${index + 1}`, session);
  }
  return true;
}

function warnOf(pattern: string, speaker: string, session: Session): void {
  if (pattern.includes('*')) return;
  session.complain(
    `${speaker}: warning: trace event '${pattern.replace(/^-/, '')}' does not exist\n`,
  );
}
