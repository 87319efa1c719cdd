/** `write`, `writev` and `aio_write`. */
import type { Image, RequestTarget } from '../../image/api/image.js';
import { CowherdError } from '../../errors.js';
import { fillFromFile, newBuffer, partsOf, usualPattern } from './buffers.js';
import type { Exerciser } from './exerciser.js';
import { IoFailure } from './failure.js';
import type { IoCommand, IoWords } from './io-command.js';
import {
  parseBytes,
  parseLengths,
  parsePattern,
  parseRequestBytes,
  requireSectors,
} from './numbers.js';
import { perform, runOn } from './requests.js';

interface Writing {
  readonly what: string;
  readonly offset: number;
  readonly lengths: readonly number[];
  /** What is written; left out for zeroes without data. */
  readonly buffer?: Buffer;
  readonly isCompressed?: boolean;
}

const sum = (lengths: readonly number[]): number => lengths.reduce((all, each) => all + each, 0);

async function performWrite(
  exerciser: Exerciser,
  words: IoWords,
  { what, offset, lengths, buffer, isCompressed = false }: Writing,
): Promise<void> {
  const length = sum(lengths);
  const queue = exerciser.queue();
  await perform(exerciser, { verb: 'wrote', what, offset, length, words }, async () => {
    if (words.has('b') && buffer !== undefined) await exerciser.image.vmState.write(buffer, offset);
    else if (buffer === undefined)
      await queue.writeZeroes(offset, length, { unmap: words.has('u') });
    else if (isCompressed) await writeClusters(exerciser.image, queue, buffer, offset);
    else if (lengths.length === 1) await queue.write(buffer, offset);
    else await queue.writev(partsOf(buffer, lengths), offset);
    if (words.has('f')) await queue.flush();
  });
}

/** Writes compressed, a cluster at a time. */
async function writeClusters(
  image: Image,
  queue: RequestTarget,
  buffer: Buffer,
  offset: number,
): Promise<void> {
  const { clusterSize, size } = image;
  const piece = clusterSize ?? buffer.length;
  const isBeyond = offset + buffer.length > size;
  const endsWithin = buffer.length % piece !== 0 && offset + buffer.length !== size;
  // Nothing is written of what cannot be written whole.
  if (!isBeyond && clusterSize !== undefined && (offset % piece !== 0 || endsWithin)) {
    const why = 'Compressed writes take whole clusters';
    throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', why, { offset });
  }
  for (let at = 0; at < buffer.length; at += piece) {
    const bytes = buffer.subarray(at, at + piece);
    if (isBeyond) await queue.write(buffer, offset);
    else {
      await refuseStored(image, offset + at, Math.min(bytes.length, size - offset - at));
      await queue.writeCompressed(bytes, offset + at);
    }
  }
}

/** Compressed data take the place of none that has a cluster, with QEMU. */
async function refuseStored(image: Image, offset: number, length: number): Promise<void> {
  for await (const extent of image.map({ offset, length })) {
    const isStored = extent.data || extent.offset !== undefined;
    // Where data lie in another file none are compressed at all.
    const isElsewhere = extent.filename !== undefined && extent.filename !== image.filename;
    if (extent.depth > 0 || !isStored || isElsewhere) continue;
    const why = 'Compressed writes need clusters that hold nothing yet';
    throw new CowherdError('ERR_COWHERD_IO', why, { offset, length });
  }
}

const pattern = (words: IoWords): number => {
  const text = words.last('P');
  return text === undefined ? usualPattern : parsePattern(text);
};

/** What cannot be said together, in the order in which it is looked at. */
const conflicts: readonly (readonly [
  isWrong: (has: (flag: string) => boolean) => boolean,
  string,
])[] = [
  [(has) => has('b') && has('z'), '-b and -z cannot be specified at the same time'],
  [
    (has) => has('f') && (has('b') || has('c')),
    '-f and -b or -c cannot be specified at the same time',
  ],
  [(has) => has('n') && !has('z'), '-n requires -z to be specified'],
  [(has) => has('u') && !has('z'), '-u requires -z to be specified'],
  [(has) => has('r') && has('z'), 'cannot combine zero write with registered I/O buffer'],
];

function refuseConflicts(words: IoWords): void {
  const wrong = conflicts.find(([isWrong]) => isWrong((flag) => words.has(flag)));
  if (wrong !== undefined) throw new IoFailure(wrong[1]);
}

/** The command `write`. */
export const writeCommand: IoCommand = {
  name: 'write',
  alias: 'w',
  flags: 'bcCfnpP:qrs:uz',
  form: '[-bcCfnqruz] [-P pattern | -s source_file] off len',
  summary: 'writes a number of bytes at a specified offset',
  least: 2,
  most: Infinity,
  operands: [2, 2],
  isChange: true,
  async run(words, exerciser) {
    const byte = pattern(words);
    refuseConflicts(words);
    if (['z', 'P', 's'].filter((flag) => words.has(flag)).length > 1) {
      throw new IoFailure('Only one of -z, -P, and -s can be specified at the same time');
    }
    const offset = parseBytes(words.operands[0]);
    const isZeroes = words.has('z');
    const length = words.has('n')
      ? parseBytes(words.operands[1])
      : parseRequestBytes(words.operands[1], ' without -n');
    const isCompressed = words.has('c') && !isZeroes;
    if (words.has('b') || words.has('c')) {
      requireSectors(offset, 'offset');
      requireSectors(length, 'count');
    }
    const writing = { what: 'write', offset, lengths: [length], isCompressed };
    if (isZeroes) {
      await performWrite(exerciser, words, writing);
      return;
    }
    const buffer = newBuffer(length, byte, exerciser.settings.isMisaligned);
    const source = words.last('s');
    if (source !== undefined) fillFromFile(buffer, source);
    await performWrite(exerciser, words, { ...writing, buffer });
  },
};

function vectorWriting(exerciser: Exerciser, words: IoWords, what: string): Writing {
  const byte = pattern(words);
  const [first, ...rest] = words.operands;
  const offset = parseBytes(first);
  const lengths = parseLengths(rest);
  const buffer = newBuffer(sum(lengths), byte, exerciser.settings.isMisaligned);
  return { what, offset, lengths, buffer };
}

/** The command `writev`. */
export const writevCommand: IoCommand = {
  name: 'writev',
  flags: 'CfP:qr',
  form: '[-Cfqr] [-P pattern] off len [len..]',
  summary: 'writes a number of bytes at a specified offset',
  least: 2,
  most: Infinity,
  operands: [2, Infinity],
  isChange: true,
  async run(words, exerciser) {
    await performWrite(exerciser, words, vectorWriting(exerciser, words, 'writev'));
  },
};

/** The command `aio_write`. */
export const aioWriteCommand: IoCommand = {
  name: 'aio_write',
  flags: 'CfiP:qruz',
  form: '[-Cfiqruz] [-P pattern] off len [len..]',
  summary: 'asynchronously writes a number of bytes',
  least: 2,
  most: Infinity,
  operands: [2, Infinity],
  isChange: true,
  async run(words, exerciser) {
    if (words.has('i')) {
      await exerciser.print('injecting invalid write request\n');
      return;
    }
    if (words.has('z') && words.operands.length > 2) {
      throw new IoFailure('-z supports only a single length parameter');
    }
    refuseConflicts(words);
    const what = 'aio_write';
    const [first, second] = words.operands;
    pattern(words);
    const writing = words.has('z')
      ? { what, offset: parseBytes(first), lengths: [parseBytes(second)] }
      : vectorWriting(exerciser, words, what);
    runOn(exerciser, performWrite(exerciser, words, writing));
  },
};
