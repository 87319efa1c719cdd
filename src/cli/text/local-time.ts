/**
 * Local time as the C library has it. Node knows the zones of the zone database; a `TZ` that is a rule
 * of its own (POSIX.1-2017, 8.3: `JST-9`, `CET-1CEST,M3.5.0,M10.5.0/3`) it takes for something else.
 */

/** A point in time as calendars and clocks show it. */
export interface LocalTime {
  readonly year: number;
  /** From 1. */
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
}

/** Second of a year's day count at which a rule comes into force, in the time that held until then. */
type ChangeOfYear = (year: number) => number;

/** What a POSIX rule says; seconds are east of UTC. */
interface ZoneRule {
  readonly standard: number;
  readonly summer: number | undefined;
  readonly begin: ChangeOfYear;
  readonly end: ChangeOfYear;
}

const daySeconds = 86_400;
/** Where a rule does not say when summer time is: that of the United States, as is the custom. */
const defaultChanges = ',M3.2.0,M11.1.0';

const zoneName = '(?:[a-zA-Z]{3,}|<[a-zA-Z0-9+-]{3,}>)';
const clock = '([+-]?\\d{1,3}(?::\\d{1,2}(?::\\d{1,2})?)?)';
const changeText = `,(J?\\d{1,3}|M\\d{1,2}\\.\\d\\.\\d)(?:/${clock})?`;
const offsets = new RegExp(`^${zoneName}${clock}(?:${zoneName}${clock}?(.*))?$`);
const changes = new RegExp(`^${changeText}${changeText}$`);

/**
 * @param seconds since 1970, UTC
 * @param zone value of the environment variable `TZ`
 */
export function localTime(seconds: number, zone = process.env['TZ']): LocalTime {
  const rule = zone === undefined ? undefined : ruleOf(zone);
  const date = new Date((seconds + (rule === undefined ? 0 : offsetAt(rule, seconds))) * 1000);
  if (rule === undefined) {
    return {
      year: date.getFullYear(),
      month: date.getMonth() + 1,
      day: date.getDate(),
      hour: date.getHours(),
      minute: date.getMinutes(),
      second: date.getSeconds(),
    };
  }
  return {
    year: date.getUTCFullYear(),
    month: date.getUTCMonth() + 1,
    day: date.getUTCDate(),
    hour: date.getUTCHours(),
    minute: date.getUTCMinutes(),
    second: date.getUTCSeconds(),
  };
}

/** Whether the zone database has it, which goes before. */
function isKnownZone(zone: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: zone }).resolvedOptions().timeZone !== '';
  } catch {
    return false;
  }
}

/** The rule that a zone is. What looks like one is looked for in the zone database first. */
function ruleOf(zone: string): ZoneRule | undefined {
  const rule = parseRule(zone);
  return rule === undefined || isKnownZone(zone) ? undefined : rule;
}

function parseRule(zone: string): ZoneRule | undefined {
  const found = offsets.exec(zone);
  if (found === null) return undefined;
  const [, west, summerWest, rest] = found as (string | undefined)[];
  const standard = -secondsOf(west);
  if (rest === undefined) return { standard, summer: undefined, begin: () => 0, end: () => 0 };
  const when = changes.exec(rest === '' ? defaultChanges : rest);
  if (when === null) return undefined;
  const summer = summerWest === undefined ? standard + 3600 : -secondsOf(summerWest);
  return { standard, summer, begin: changeOf(when[1], when[2]), end: changeOf(when[3], when[4]) };
}

function offsetAt({ standard, summer, begin, end }: ZoneRule, seconds: number): number {
  if (summer === undefined) return standard;
  const year = new Date((seconds + standard) * 1000).getUTCFullYear();
  const from = begin(year) - standard;
  const to = end(year) - summer;
  const isSummer = from < to ? seconds >= from && seconds < to : seconds >= from || seconds < to;
  return isSummer ? summer : standard;
}

/** @param text `[+-]hh[:mm[:ss]]` */
function secondsOf(text: string | undefined): number {
  const [hours, minutes = 0, seconds = 0] = (text ?? '0')
    .replace(/^[+-]/, '')
    .split(':')
    .map(Number);
  const total = hours * 3600 + minutes * 60 + seconds;
  return text?.startsWith('-') === true ? -total : total;
}

/** When a change is: `Jn` (1 to 365, never 29 February), `n` (0 to 365) or `Mmonth.week.weekday`. */
function changeOf(day: string, time = '2'): ChangeOfYear {
  const startOf = (year: number, month: number, date: number): number =>
    Date.UTC(year, month, date) / 1000;
  const at = secondsOf(time);
  const numbers = day.replace(/^[JM]/, '').split('.').map(Number);
  if (day.startsWith('M')) {
    const [month, week, weekday] = numbers;
    return (year) => {
      const first = new Date(Date.UTC(year, month - 1, 1)).getUTCDay();
      const days = new Date(Date.UTC(year, month, 0)).getUTCDate();
      let date = 1 + ((weekday - first + 7) % 7) + (week - 1) * 7;
      // The fifth is the last.
      if (date > days) date -= 7;
      return startOf(year, month - 1, date) + at;
    };
  }
  // Of a year that has no leap day.
  if (day.startsWith('J')) {
    return (year) => {
      const { date, month } = dayOfCommonYear(numbers[0]);
      return startOf(year, month, date) + at;
    };
  }
  return (year) => startOf(year, 0, 1) + numbers[0] * daySeconds + at;
}

function dayOfCommonYear(day: number): { readonly month: number; readonly date: number } {
  const found = new Date(Date.UTC(2001, 0, day));
  return { month: found.getUTCMonth(), date: found.getUTCDate() };
}
