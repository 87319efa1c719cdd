/** The filter `rate`: so many bytes a second are read and written, with a bounded burst after a pause. */
import { RateBudget } from '../../rate-budget.js';
import { type Filter, size } from './filter.js';
import { PacedFile, budgetMemory } from './paced-file.js';

const options = {
  /** Bytes a second, reads and writes together. */
  bytesPerSecond: size('bytes a second, reads and writes together', 1),
  /** Bytes that may come at once after a pause; default a tenth of a second's. */
  burst: size("bytes that may come at once after a pause; default a tenth of a second's", 1),
};

/** See the file's comment. */
export const rateFilter: Filter<'rate', typeof options, 'bytesPerSecond'> = {
  name: 'rate',
  help: 'limits the bytes that are read and written a second',
  options,
  required: ['bytesPerSecond'],
  words: 1,
  wrap(inner, use) {
    const { bytesPerSecond, burst } = use.options;
    const budget = new RateBudget(budgetMemory(use.words), 0, bytesPerSecond, burst);
    return new PacedFile(inner, use, ({ kind, length }, nowMs) =>
      kind === 'read' || kind === 'write' ? budget.spendAhead(length, nowMs) : 0,
    );
  },
};
