/** Commands about the disk as a whole, and how it is stored. */
import { CowherdError } from '../../errors.js';
import type { Preallocation } from '../../image/api/options.js';
import { CliError } from '../process/cli-error.js';
import { exactInteger } from '../text/decimal.js';
import { specificLines } from '../text/info-human.js';
import type { Exerciser } from './exerciser.js';
import { sizeText } from './figures.js';
import type { IoCommand } from './io-command.js';
import { parseBytes, parseRequestBytes, sectorBytes } from './numbers.js';
import { perform, requestFailure } from './requests.js';

const modes: readonly string[] = ['off', 'metadata', 'falloc', 'full'] satisfies Preallocation[];

/** The command `discard`. */
export const discardCommand: IoCommand = {
  name: 'discard',
  alias: 'd',
  flags: 'Cq',
  form: '[-Cq] off len',
  summary: 'discards a number of bytes at a specified offset',
  least: 2,
  most: Infinity,
  operands: [2, 2],
  isChange: true,
  async run(words, exerciser) {
    const offset = parseBytes(words.operands[0]);
    const length = parseRequestBytes(words.operands[1]);
    const told = { verb: 'discard', what: 'discard', offset, length, words };
    const queue = exerciser.queue();
    await perform(exerciser, told, () => queue.discard(offset, length));
  },
};

/** The command `flush`. */
export const flushCommand: IoCommand = {
  name: 'flush',
  alias: 'f',
  form: '',
  summary: 'flush all in-core file state to disk',
  async run(_words, exerciser) {
    const queue = exerciser.queue();
    try {
      await queue.flush();
    } catch (error) {
      throw requestFailure(exerciser, 'flush', error);
    }
  },
};

/** The command `aio_flush`. */
export const aioFlushCommand: IoCommand = {
  name: 'aio_flush',
  form: '',
  summary: 'completes all outstanding aio requests',
  run: (_words, exerciser) => exerciser.settled(),
};

/** The command `truncate`. */
export const truncateCommand: IoCommand = {
  name: 'truncate',
  alias: 't',
  flags: 'm:',
  form: '[-m prealloc_mode] off',
  summary: 'truncates the current file at the given offset',
  least: 1,
  most: 3,
  operands: [1, 2],
  isChange: true,
  async run(words, { image, session }) {
    const mode = words.last('m') ?? 'off';
    if (!modes.includes(mode)) throw new CliError(`Invalid preallocation mode '${mode}'`);
    const size = parseBytes(words.operands[0]);
    const preallocation = mode as Preallocation;
    try {
      if (size < image.size && preallocation !== 'off') {
        throw new CliError("Preallocation can't be used for shrinking an image");
      }
      const options = { shrink: true, preallocation, signal: session.signal };
      if (size !== image.size) await image.resize(size, options);
    } catch (error) {
      if (!(error instanceof CowherdError) || session.signal.aborted) throw error;
      throw new CliError(error.why ?? error.message, { cause: error });
    }
  },
};

/** The command `length`. */
export const lengthCommand: IoCommand = {
  name: 'length',
  alias: 'l',
  form: '',
  summary: 'gets the length of the current file',
  run: (_words, exerciser) => exerciser.print(`${sizeText(exerciser.image.size)}\n`),
};

/** The command `info`. */
export const infoCommand: IoCommand = {
  name: 'info',
  alias: 'i',
  form: '',
  summary: 'prints information about the current file',
  async run(_words, exerciser) {
    const {
      format,
      clusterSize = 0,
      vmStateOffset = 0,
      formatSpecific,
    } = await exerciser.image.info();
    const lines = [
      `format name: ${format}`,
      `cluster size: ${sizeText(clusterSize)}`,
      `vm state offset: ${sizeText(vmStateOffset)}`,
      ...(formatSpecific === undefined ? [] : specificLines(formatSpecific)),
    ];
    await exerciser.print(lines.map((line) => `${line}\n`).join(''));
  },
};

/** A stretch of the disk that the image holds by itself, or does not. */
interface Stretch {
  readonly start: number;
  readonly length: number;
  readonly isAllocated: boolean;
}

/** The stretches of a range, from its begin on; neighbours differ. */
async function stretches(
  { image }: Exerciser,
  range: { readonly offset: number; readonly length: number },
): Promise<readonly Stretch[]> {
  const found: Stretch[] = [];
  for await (const { start, length, present, depth } of image.map(range)) {
    const isAllocated = present && depth === 0;
    const last = found.at(-1);
    if (last?.isAllocated === isAllocated) {
      found[found.length - 1] = { ...last, length: last.length + length };
    } else found.push({ start, length, isAllocated });
  }
  return found;
}

/** The command `alloc`. */
export const allocCommand: IoCommand = {
  name: 'alloc',
  alias: 'a',
  form: 'offset [count]',
  summary: 'checks if offset is allocated in the file',
  least: 1,
  most: 2,
  async run({ operands }, exerciser) {
    const [first, second] = operands as readonly [string, string?];
    const offset = parseBytes(first);
    const wanted = second === undefined ? sectorBytes : parseBytes(second);
    const length = Math.min(wanted, Math.max(0, exerciser.image.size - offset));
    const found = length === 0 ? [] : await stretches(exerciser, { offset, length });
    const allocated = found
      .filter(({ isAllocated }) => isAllocated)
      .reduce((sum, stretch) => sum + stretch.length, 0);
    await exerciser.print(`${allocated}/${length} bytes allocated at offset ${sizeText(offset)}\n`);
  },
};

/** The command `map`. */
export const mapCommand: IoCommand = {
  name: 'map',
  form: '',
  summary: 'prints the allocated areas of a file',
  async run(_words, exerciser) {
    const all = await stretches(exerciser, { offset: 0, length: exerciser.image.size });
    const bytes = (count: number): string => `0x${BigInt(exactInteger(count)).toString(16)}`;
    const lines = all.map(({ start, length, isAllocated }) => {
      const state = isAllocated ? '    allocated' : 'not allocated';
      return `${sizeText(length)} (${bytes(length)}) bytes ${state} at offset ${sizeText(start)} (${bytes(start)})\n`;
    });
    await exerciser.print(lines.join(''));
  },
};
