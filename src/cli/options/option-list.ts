/** Lists of the form `name=value,name=value` as QEMU writes them, a comma in a value doubled. */
import { CliError } from '../process/cli-error.js';

/** One item of a list. */
export interface ListItem {
  readonly name: string;
  readonly value: string;
}

/**
 * Splits a list into its items. An item without a value is a switch: `name` means on, `noname` off.
 */
export function parseOptionList(list: string): readonly ListItem[] {
  return splitAtCommas(list).map((item) => {
    const equals = item.indexOf('=');
    if (equals !== -1) return { name: item.slice(0, equals), value: item.slice(equals + 1) };
    return item.startsWith('no')
      ? { name: item.slice(2), value: 'off' }
      : { name: item, value: 'on' };
  });
}

function splitAtCommas(list: string): string[] {
  const items: string[] = [];
  let item = '';
  for (let index = 0; index < list.length; index++) {
    if (list[index] !== ',') {
      item += list[index];
    } else if (list[index + 1] === ',') {
      item += ',';
      index += 1;
    } else {
      items.push(item);
      item = '';
    }
  }
  items.push(item);
  return items;
}

/**
 * Joins the lists that several `-o` gave.
 *
 * @throws CliError for a list with an item that is empty or begins with a comma, as a list does that
 *   begins or ends with one: joined with others it would mean something else
 */
export function joinOptionLists(lists: readonly string[]): string {
  for (const list of lists) {
    if (splitAtCommas(list).some((item) => item === '' || item.startsWith(','))) {
      throw new CliError(`Invalid option list: ${list}`);
    }
  }
  return lists.join(',');
}

/** Whether a list asks for the options there are. */
export function asksForHelp(list: string): boolean {
  return splitAtCommas(list).some((item) => item === 'help' || item === '?');
}

/** A value as it is printed in a list. */
export function escapeListValue(value: string): string {
  return value.replaceAll(',', ',,');
}
