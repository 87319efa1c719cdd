/** Nodes that QEMU's users put over an image to try it, and that are the exerciser's own: `copy-on-read`. */
import { escapeListValue, parseOptionList } from '../options/option-list.js';
import type { CliError } from '../process/cli-error.js';
import type { Opening } from './opening.js';

const copyOnRead = 'copy-on-read';

/**
 * Takes what stands over an image off the way it is to be opened.
 *
 * @param refuse makes the error of what cannot be done
 */
export function belowNodes(opening: Opening, refuse: (why: string) => CliError): Opening {
  const { list } = opening;
  if (list === undefined) return opening;
  const values = new Map(parseOptionList(list).map(({ name, value }) => [name, value]));
  if (values.get('driver') !== copyOnRead) return opening;
  if (opening.readOnly) throw refuse('Block node is read-only');
  return { ...opening, copiesOnRead: true, list: listBelow(values) };
}

/** The list of what lies below a node, as its file. */
function listBelow(values: ReadonlyMap<string, string>): string {
  const own = [...values].flatMap(([name, value]) => {
    // What the path says is the file of the image, whatever stands between.
    if (name === 'file.filename') return [`${name}=${escapeListValue(value)}`];
    if (!name.startsWith('file.')) return [];
    return [`${name.slice('file.'.length)}=${escapeListValue(value)}`];
  });
  return own.join(',');
}
