/** Files of rules: groups `[inject-error]` and `[set-state]`, and a line `NAME = "VALUE"` for each option. */
import { readFileSync } from 'node:fs';
import { hostPath } from '../../../byte-names.js';
import { CowherdError, errorFromErrno, printable } from '../../../errors.js';
import { describeErrno } from '../../../system-errors.js';

/** One group: its name, and its options as texts. */
export interface ConfigGroup {
  readonly name: string;
  readonly line: number;
  readonly values: ReadonlyMap<string, string>;
}

const mostBytes = 1024 * 1024;

/** @throws CowherdError naming the file, and the line that is none */
export function readConfigFile(filename: string): readonly ConfigGroup[] {
  let bytes: Buffer;
  try {
    bytes = readFileSync(hostPath(filename));
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).code ?? 'EIO';
    const message = `Could not read blkdebug config file: '${printable(filename)}': ${describeErrno(errno)}`;
    throw errorFromErrno(errno, message, { filename });
  }
  if (bytes.length > mostBytes) {
    throw configProblem(filename, 1, `a file of rules has at most ${mostBytes} bytes`);
  }
  const groups: (ConfigGroup & { readonly values: Map<string, string> })[] = [];
  for (const [index, text] of bytes.toString('utf8').split('\n').entries()) {
    const line = index + 1;
    const trimmed = text.trim();
    if (trimmed === '' || trimmed.startsWith('#')) continue;
    const group = /^\[([\w-]+)(?: "[^"]*")?\]$/.exec(trimmed)?.at(1);
    if (group !== undefined) {
      groups.push({ name: group, line, values: new Map() });
      continue;
    }
    const item = /^([\w-]+)\s*=\s*"([^"]*)"$/.exec(trimmed);
    if (item === null) {
      throw configProblem(filename, line, '[GROUP] or NAME = "VALUE" is expected');
    }
    const last = groups.at(-1);
    if (last === undefined) throw configProblem(filename, line, 'no group begins before it');
    last.values.set(item[1], item[2]);
  }
  return groups;
}

/** What is wrong with a line of a file of rules. */
export function configProblem(filename: string, line: number, why: string): CowherdError {
  const message = `Could not read blkdebug config file: '${printable(filename)}': line ${line}: ${why}`;
  return new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename });
}
