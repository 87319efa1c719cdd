/**
 * The filter `blkdebug`: requests fail by rules, which events in the code above bring into force, as in QEMU.
 * Its limits are what requests below it keep to.
 */
import { type Filter, count, flag, oneOf, path, records, size } from '../filter.js';
import { BlkdebugFile, DebugState } from './blkdebug-file.js';
import { configProblem, readConfigFile } from './config-file.js';
import { events, ioTypes } from './events.js';
import { mostRules, wordsOfRules } from './rules.js';

const maxLimit = 2 ** 31 - 2;
const eventName = oneOf('', 'EVENT', events, 'an event such as write_aio');

const injectError = records(
  'rules by which requests fail: inject-error.N.event and so on',
  {
    event: eventName,
    state: count('', 0),
    iotype: oneOf('', 'KIND', ioTypes),
    errno: count('', 0),
    sector: count('', 0),
    once: flag(''),
    immediately: flag(''),
  },
  ['event'],
);
const setState = records(
  'rules by which events lead from state to state: set-state.N.event and so on',
  { event: eventName, state: count('', 0), newState: { ...count('', 0), shell: 'new_state' } },
  ['event', 'newState'],
);

const limit = (help: string): ReturnType<typeof size> => size(help, 0, maxLimit);
const options = {
  /** File of rules, which come before those that are given here. */
  config: path('a file of rules'),
  /** Bytes that requests are aligned to, a power of two; default, and with 0, what is below says. */
  align: limit('bytes that requests are aligned to'),
  /** The most bytes that one request transfers. */
  maxTransfer: limit('the most bytes that one request transfers'),
  /** Bytes that requests to write zeroes are aligned to; what is not is written as data. */
  optWriteZero: limit('bytes that requests to write zeroes are aligned to'),
  /** The most bytes that one request to write zeroes covers. */
  maxWriteZero: limit('the most bytes that one request to write zeroes covers'),
  /** Bytes that discards are aligned to; what is not is a discard of its own. */
  optDiscard: limit('bytes that discards are aligned to'),
  /** The most bytes that one discard covers. */
  maxDiscard: limit('the most bytes that one discard covers'),
  /** Rules by which requests fail. */
  injectError,
  /** Rules by which events lead from state to state; the first state is 1. */
  setState,
};

/** See the file's comment. */
export const blkdebugFilter: Filter<'blkdebug', typeof options, never> = {
  name: 'blkdebug',
  help: 'has requests fail by rules, from events in the code above on, as in QEMU',
  options,
  required: [],
  words: wordsOfRules,
  below: 'image',
  prefix: 'blkdebug:',
  prefixSays: ['config'],
  // Of a file of rules a name in an image would tell whether it is there.
  isHarmless: ({ config }) => config === undefined,
  parseName(rest) {
    const at = rest.indexOf(':');
    if (at === -1) return 'blkdebug requires both config file and image path';
    const config = rest.slice(0, at);
    return { options: config === '' ? {} : { config }, below: rest.slice(at + 1) };
  },
  problem(given, spell) {
    const { align = 0, optWriteZero = 0, optDiscard = 0 } = given;
    if (align > 0 && (align & (align - 1)) !== 0) {
      return `Cannot meet constraints with ${spell('align')} ${align}`;
    }
    if ((given.injectError?.length ?? 0) > mostRules)
      return `at most ${mostRules} rules can be given`;
    const multiples = [
      ['maxTransfer', align],
      ['optWriteZero', align],
      ['maxWriteZero', Math.max(align, optWriteZero)],
      ['optDiscard', align],
      ['maxDiscard', Math.max(align, optDiscard)],
    ] as const;
    const unmet = multiples.find(([key, of]) => (given[key] ?? 0) % Math.max(1, of) !== 0);
    if (unmet === undefined) return undefined;
    return `Cannot meet constraints with ${spell(unmet[0])} ${given[unmet[0]] ?? 0}`;
  },
  prepare({ config, ...given }) {
    if (config === undefined) return given;
    const read = { 'inject-error': [] as unknown[], 'set-state': [] as unknown[] };
    for (const { name, line, values } of readConfigFile(config)) {
      if (name !== 'inject-error' && name !== 'set-state') {
        throw configProblem(config, line, `there is no group '${name}'`);
      }
      const { gather, expected } = name === 'set-state' ? setState : injectError;
      const texts = new Map([...values].map(([key, value]) => [`0.${key}`, value]));
      const rule = gather?.(texts)?.at(0);
      if (rule === undefined) throw configProblem(config, line, `${expected} is expected`);
      read[name].push(rule);
    }
    if (read['inject-error'].length > mostRules) {
      throw configProblem(config, 1, `at most ${mostRules} rules can be given`);
    }
    return {
      ...given,
      injectError: [
        ...read['inject-error'],
        ...(given.injectError ?? []),
      ] as typeof given.injectError,
      setState: [...read['set-state'], ...(given.setState ?? [])] as typeof given.setState,
    };
  },
  wrap(inner, use) {
    const { injectError: faults = [], setState: changes = [], ...limits } = use.options;
    const rules = { injectError: faults, setState: changes };
    return new BlkdebugFile(inner, new DebugState(rules, use.words), limits, use);
  },
};
