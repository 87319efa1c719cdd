/** JSON text laid out as QEMU's tools print it: four spaces, ASCII only, brackets on own lines. */

import { exactInteger } from './decimal.js';

/** A value to print; an object's keys are printed in their order, those without a value left out. */
export type JsonValue =
  | string
  | number
  | boolean
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue | undefined };

/** The text of a value, without a line break at its end. */
export function formatQemuJson(value: JsonValue, indent = ''): string {
  if (typeof value === 'string') return formatString(value);
  if (typeof value === 'number' && Number.isInteger(value)) return exactInteger(value);
  if (typeof value !== 'object') return String(value);
  const inner = `${indent}    `;
  if (isList(value)) {
    const items = value.map((item) => inner + formatQemuJson(item, inner));
    return enclose('[', items, `${indent}]`);
  }
  const members: string[] = [];
  for (const [key, member] of Object.entries(value)) {
    if (member !== undefined) {
      members.push(`${inner}${formatString(key)}: ${formatQemuJson(member, inner)}`);
    }
  }
  return enclose('{', members, `${indent}}`);
}

function isList(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}

function enclose(open: string, items: readonly string[], close: string): string {
  return items.length === 0 ? `${open}\n${close}` : `${open}\n${items.join(',\n')}\n${close}`;
}

function formatString(text: string): string {
  // What JSON itself escapes is escaped the same way; beyond that everything outside ASCII is.
  const escapes = /\\u([0-9a-f]{4})|\\.|[\u007f-\uffff]/g;
  return JSON.stringify(text).replace(escapes, (match, code?: string) => {
    if (match.startsWith('\\') && code === undefined) return match;
    // JSON escapes by itself what is no text: a byte of a name that is not UTF-8.
    if (code?.startsWith('d') === true) return '\\uFFFD';
    const digits = code ?? match.charCodeAt(0).toString(16).padStart(4, '0');
    return `\\u${digits.toUpperCase()}`;
  });
}
