/** `open`, `close` and `reopen`. */
import { CliError } from '../process/cli-error.js';
import { type IoCommand, misused } from './io-command.js';
import { listWith, parseCache, parseWays, plainOpening } from './opening.js';

/** The command `open`. */
export const openCommand: IoCommand = {
  name: 'open',
  alias: 'o',
  flags: 'snCro:ki:t:d:U',
  form: '[-rsCnkU] [-t cache] [-d discard] [-o options] [path]',
  summary: 'open the file specified by path',
  least: 1,
  most: Infinity,
  operands: [0, 1],
  isFree: true,
  async run(words, exerciser) {
    const [given] = words.operands as readonly [string?];
    const lists = words.all('o');
    if (given === undefined && lists.length === 0) throw misused(openCommand);
    const opening = {
      ...plainOpening,
      given,
      readOnly: words.has('r'),
      forceShare: words.has('U'),
      isSnapshot: words.has('s'),
      copiesOnRead: words.has('C'),
      ...parseWays({
        cache: words.last('t') ?? (words.has('n') ? 'none' : undefined),
        discard: words.last('d'),
        aio: words.last('i') ?? (words.has('k') ? 'native' : undefined),
      }),
    };
    if (exerciser.settings.isByLists && given !== undefined) {
      await exerciser.open({ ...opening, given: undefined, list: [given, ...lists].join(',') });
      return;
    }
    const list = lists.length === 0 ? undefined : listWith(opening, lists.join(','));
    await exerciser.open({ ...opening, list });
  },
};

/** The command `close`. */
export const closeCommand: IoCommand = {
  name: 'close',
  alias: 'c',
  form: '',
  summary: 'close the current open file',
  run: (_words, exerciser) => exerciser.close(),
};

/** The command `reopen`. */
export const reopenCommand: IoCommand = {
  name: 'reopen',
  flags: 'c:o:rw',
  form: '[(-r|-w)] [-c cache] [-o options]',
  summary: 'reopens an image with new options',
  most: Infinity,
  operands: [0, 0],
  async run(words, exerciser) {
    const before = exerciser.requireDisk().opening;
    const cache = words.last('c');
    const mode = cache === undefined ? before.cache : parseCache(cache);
    if (words.count('r') + words.count('w') > 1) {
      throw new CliError('Only one -r/-w option may be given');
    }
    const lists = words.all('o');
    const list = lists.length === 0 ? before.list : listWith(before, lists.join(','));
    if (cache !== undefined && /(?:^|,)cache\./.test(lists.join(','))) {
      throw new CliError('Cannot set both -c and the cache options');
    }
    const readOnly = words.has('r') || (before.readOnly && !words.has('w'));
    await exerciser.reopen({ ...before, readOnly, cache: mode, list });
  },
};
