/** Facts that only one format has, under QEMU's names and in QEMU's order. */
import type { FormatSpecificInfo } from '../../image/api/reports.js';
import type { JsonValue } from './qemu-json.js';

/** Members that QEMU calls otherwise than by their own words. */
const otherNames: Readonly<Record<string, string>> = {
  iterations: 'iters',
  masterKeyIterations: 'master-key-iters',
};

/** The facts as QEMU's JSON has them; the text for people is made of the same value. */
export function specificJson(facts: FormatSpecificInfo): Record<string, JsonValue | undefined> {
  const told = Object.entries(facts).filter(([name]) => name !== 'type');
  return Object.fromEntries(told.map(([name, value]) => [qemuName(name), valueJson(value)]));
}

function valueJson(value: unknown): JsonValue {
  if (Array.isArray(value)) return value.map(valueJson);
  if (typeof value !== 'object' || value === null) return value as JsonValue;
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(members.map(([name, member]) => [qemuName(name), valueJson(member)]));
}

/** `dataFileRaw` as `data-file-raw`. */
function qemuName(name: string): string {
  const other = otherNames[name] as string | undefined;
  return other ?? name.replace(/[A-Z]+/g, (capitals) => `-${capitals.toLowerCase()}`);
}
