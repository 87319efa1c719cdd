/** `read`, `readv` and `aio_read`. */
import { dumpText, isFilledWith, newBuffer, partsOf, unreadByte } from './buffers.js';
import { copyUp } from './copy-on-read.js';
import type { Exerciser } from './exerciser.js';
import { IoFailure } from './failure.js';
import { type IoCommand, type IoWords, misused } from './io-command.js';
import {
  parseBytes,
  parseLengths,
  parsePattern,
  parseRequestBytes,
  requireSectors,
} from './numbers.js';
import { perform, runOn } from './requests.js';

/** Which bytes of what was read have to be of a pattern. */
interface Expected {
  readonly byte: number;
  readonly start: number;
  readonly length: number;
}

interface Reading {
  readonly what: string;
  readonly offset: number;
  readonly lengths: readonly number[];
  readonly expected: Expected | undefined;
}

async function performRead(
  exerciser: Exerciser,
  words: IoWords,
  { what, offset, lengths, expected }: Reading,
): Promise<void> {
  const length = lengths.reduce((sum, each) => sum + each, 0);
  const buffer = newBuffer(length, unreadByte, exerciser.settings.isMisaligned);
  const queue = exerciser.queue();
  await perform(
    exerciser,
    { verb: 'read', what, offset, length, words },
    async () => {
      if (words.has('b')) await exerciser.image.vmState.read(buffer, offset);
      else if (lengths.length === 1) await queue.read(buffer, offset);
      else await queue.readv(partsOf(buffer, lengths), offset);
      const { image, copiesOnRead } = exerciser.requireDisk();
      if (copiesOnRead && !words.has('b')) await copyUp(image, offset, length);
    },
    async () => {
      if (expected === undefined || holds(buffer, expected)) return true;
      const { start, length: checked } = expected;
      await exerciser.print(
        `Pattern verification failed at offset ${offset + start}, ${checked} bytes\n`,
      );
      return false;
    },
    async () => {
      if (words.has('v')) await exerciser.print(dumpText(buffer, offset));
    },
  );
}

function holds(buffer: Buffer, { byte, start, length }: Expected): boolean {
  return isFilledWith(buffer.subarray(start, start + length), byte);
}

/** Has nothing be under way where what is read is kept in the image: nobody may write to it then. */
async function beforeCopies(exerciser: Exerciser): Promise<boolean> {
  const { copiesOnRead } = exerciser.requireDisk();
  if (copiesOnRead) await exerciser.settled();
  return copiesOnRead;
}

const pattern = (words: IoWords): number | undefined => {
  const text = words.last('P');
  return text === undefined ? undefined : parsePattern(text);
};

/** The command `read`. */
export const readCommand: IoCommand = {
  name: 'read',
  alias: 'r',
  flags: 'bCl:pP:qrs:v',
  form: '[-abCqrv] [-P pattern [-s off] [-l len]] off len',
  summary: 'reads a number of bytes at a specified offset',
  least: 2,
  most: Infinity,
  operands: [2, 2],
  async run(words, exerciser) {
    const byte = pattern(words);
    const [checkedLength, start = 0] = ['l', 's'].map((flag) => {
      const text = words.last(flag);
      return text === undefined ? undefined : parseBytes(text);
    });
    const offset = parseBytes(words.operands[0]);
    const length = parseRequestBytes(words.operands[1]);
    if (byte === undefined && (words.has('l') || words.has('s'))) throw misused(readCommand);
    const checked = checkedLength ?? length - start;
    if (start + checked > length || checked < 0) {
      throw new IoFailure('pattern verification range exceeds end of read data');
    }
    if (words.has('b')) {
      requireSectors(offset, 'offset');
      requireSectors(length, 'count');
    }
    const expected = byte === undefined ? undefined : { byte, start, length: checked };
    const reading = { what: 'read', offset, lengths: [length], expected };
    await beforeCopies(exerciser);
    await performRead(exerciser, words, reading);
  },
};

function vectorReading(words: IoWords): Reading {
  const byte = pattern(words);
  const [first, ...rest] = words.operands;
  const offset = parseBytes(first);
  const lengths = parseLengths(rest);
  const length = lengths.reduce((sum, each) => sum + each, 0);
  const expected = byte === undefined ? undefined : { byte, start: 0, length };
  return { what: 'readv', offset, lengths, expected };
}

/** The command `readv`. */
export const readvCommand: IoCommand = {
  name: 'readv',
  flags: 'CP:qrv',
  form: '[-Cqrv] [-P pattern] off len [len..]',
  summary: 'reads a number of bytes at a specified offset',
  least: 2,
  most: Infinity,
  operands: [2, Infinity],
  async run(words, exerciser) {
    const reading = vectorReading(words);
    await beforeCopies(exerciser);
    await performRead(exerciser, words, reading);
  },
};

/** The command `aio_read`. */
export const aioReadCommand: IoCommand = {
  name: 'aio_read',
  flags: 'CP:iqrv',
  form: '[-Ciqrv] [-P pattern] off len [len..]',
  summary: 'asynchronously reads a number of bytes',
  least: 2,
  most: Infinity,
  operands: [2, Infinity],
  async run(words, exerciser) {
    if (words.has('i')) {
      await exerciser.print('injecting invalid read request\n');
      return;
    }
    const reading = vectorReading(words);
    const copies = await beforeCopies(exerciser);
    runOn(exerciser, performRead(exerciser, words, reading));
    if (copies) await exerciser.settled();
  },
};
