/** Commands about the exerciser itself and its process. */
import { constants } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import type { IoCommand } from './io-command.js';
import { parseBytes, parseMilliseconds } from './numbers.js';

/** Milliseconds in which any signal has come. */
const forEver = 2_147_483_647;

/** The command `sleep`. */
export const sleepCommand: IoCommand = {
  name: 'sleep',
  form: '',
  summary: 'waits for the given value in milliseconds',
  least: 1,
  most: 1,
  isFree: true,
  async run({ operands: [text] }, { session: { signal } }) {
    await wait(parseMilliseconds(text), undefined, { signal });
  },
};

/** The command `queue`: one of the queues that were asked for by `--queues`. */
export const queueCommand: IoCommand = {
  name: 'queue',
  form: 'index',
  summary: 'sends all further requests to one queue, instead of to each in turn',
  least: 1,
  most: 1,
  run({ operands: [text] }, exerciser) {
    exerciser.choose(parseBytes(text));
  },
};

/** The command `abort`. */
export const abortCommand: IoCommand = {
  name: 'abort',
  form: '',
  summary: 'simulate a program crash using abort(3)',
  isFree: true,
  async run() {
    // What is held back of the output is lost, as it is to a program that crashes.
    process.kill(process.pid, 'SIGABRT');
    await wait(forEver);
  },
};

/** The command `sigraise`. */
export const sigraiseCommand: IoCommand = {
  name: 'sigraise',
  form: 'signal',
  summary: 'raises a signal',
  least: 1,
  most: 1,
  isFree: true,
  async run({ operands: [text] }, { session }) {
    const number = parseBytes(text);
    const name = Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
    await session.flush();
    // The signal does what it does to a program that does not handle it.
    if (name !== undefined) process.removeAllListeners(name);
    process.kill(process.pid, number);
  },
};

/** The command `quit`. */
export const quitCommand: IoCommand = {
  name: 'quit',
  alias: 'q',
  form: '',
  summary: 'exit the program',
  most: Infinity,
  isFree: true,
  run(_words, exerciser) {
    exerciser.isDone = true;
  },
};
