/**
 * The filter `throttle`: limits of operations and bytes a second, by the names and rules of QEMU's throttle
 * groups. Writing zeroes and discarding count as writing.
 */
import { RateBudget } from '../../rate-budget.js';
import { type Filter, count, size } from './filter.js';
import type { OperationKind } from './filter-file.js';
import { PacedFile, budgetMemory } from './paced-file.js';

const options = {
  /** Operations a second. */
  iopsTotal: count('operations a second', 1),
  /** Reads a second. */
  iopsRead: count('reads a second', 1),
  /** Writes a second. */
  iopsWrite: count('writes a second', 1),
  /** Bytes a second. */
  bpsTotal: size('bytes a second', 1),
  /** Bytes read a second. */
  bpsRead: size('bytes read a second', 1),
  /** Bytes written a second. */
  bpsWrite: size('bytes written a second', 1),
  /** Operations that may come at once after a pause; default a tenth of a second's, as of the others. */
  iopsTotalMax: count('operations that may come at once after a pause', 1),
  /** Reads that may come at once after a pause. */
  iopsReadMax: count('reads that may come at once after a pause', 1),
  /** Writes that may come at once after a pause. */
  iopsWriteMax: count('writes that may come at once after a pause', 1),
  /** Bytes that may come at once after a pause. */
  bpsTotalMax: size('bytes that may come at once after a pause', 1),
  /** Bytes that may be read at once after a pause. */
  bpsReadMax: size('bytes that may be read at once after a pause', 1),
  /** Bytes that may be written at once after a pause. */
  bpsWriteMax: size('bytes that may be written at once after a pause', 1),
};

/** Limits in the order of their words; each has its burst beside it. */
const limits = ['iopsTotal', 'iopsRead', 'iopsWrite', 'bpsTotal', 'bpsRead', 'bpsWrite'] as const;
type Limit = (typeof limits)[number];

/** What counts as reading, and as writing. */
const directions: Readonly<Partial<Record<OperationKind, 'Read' | 'Write'>>> = {
  read: 'Read',
  write: 'Write',
  writeZeroes: 'Write',
  discard: 'Write',
};

/** See the file's comment. */
export const throttleFilter: Filter<'throttle', typeof options, never> = {
  name: 'throttle',
  help: 'limits operations and bytes a second, with the limits of a throttle group of QEMU',
  options,
  required: [],
  words: limits.length,
  problem(given, spell) {
    for (const unit of ['iops', 'bps'] as const) {
      const total = given[`${unit}Total`] ?? given[`${unit}TotalMax`];
      const part = (['Read', 'Write'] as const).find(
        (each) => (given[`${unit}${each}`] ?? given[`${unit}${each}Max`]) !== undefined,
      );
      if (total !== undefined && part !== undefined) {
        return `${spell(`${unit}Total`)} and ${spell(`${unit}${part}`)} cannot be given together`;
      }
    }
    const lower = limits.find(
      (name) => (given[`${name}Max`] ?? Infinity) < (given[name] ?? Infinity),
    );
    if (lower === undefined) return undefined;
    return given[lower] === undefined
      ? `${spell(`${lower}Max`)} needs ${spell(lower)}`
      : `${spell(`${lower}Max`)} is lower than ${spell(lower)}`;
  },
  wrap(inner, use) {
    const memory = budgetMemory(use.words);
    const budgets = new Map<Limit, RateBudget>();
    for (const [index, name] of limits.entries()) {
      const perSecond = use.options[name];
      if (perSecond === undefined) continue;
      budgets.set(name, new RateBudget(memory, index, perSecond, use.options[`${name}Max`]));
    }
    return new PacedFile(inner, use, ({ kind, length }, nowMs) => {
      const direction = directions[kind];
      let waitMs = 0;
      if (direction === undefined) return waitMs;
      for (const whose of ['Total', direction] as const) {
        waitMs = Math.max(waitMs, budgets.get(`iops${whose}`)?.spend(1, nowMs) ?? 0);
        waitMs = Math.max(waitMs, budgets.get(`bps${whose}`)?.spend(length, nowMs) ?? 0);
      }
      return waitMs;
    });
  },
};
