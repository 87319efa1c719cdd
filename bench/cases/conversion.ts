/** Races of one conversion: the same source into new files, by both programs. */
import { rm } from 'node:fs/promises';
import type { Duel, Figure, Runner } from '../duel.js';
import { type Taken, runProgram, take, takeCowherd, takeNode } from '../programs.js';

/** Its best options, where the target may be filled in any order. */
export const best = ['-m', '16', '-W'];
const orders: readonly (readonly string[])[] = [[], best];
export const rounds = 9;
/** Of the host's memory, what is at hand before each conversion; the largest target takes 2 GiB. */
const memoryMib = 5120;
/** How often a run that hangs is tried. */
const mostTries = 12;

/** What is converted, and into what. */
export interface Conversion {
  readonly words: readonly string[];
  readonly source: string;
  readonly target: Target;
  /** Ways of qemu-img to choose the best of; `orders` if not given. */
  readonly ways?: readonly (readonly string[])[];
  /** Seconds after which qemu-img counts as hung, as 10.0 is in most runs on web servers; then it is run again. */
  readonly mostSeconds?: number;
}

/** A new file for each conversion. */
export class Target {
  readonly filename: string;
  readonly #hostMemory: string | undefined;

  /** @param hostMemory the program `host-memory` */
  constructor(filename: string, hostMemory: string | undefined) {
    this.filename = filename;
    this.#hostMemory = hostMemory;
  }

  /**
   * Removes it, and sees to memory for the next: in a virtual machine that gives free memory back to its
   * host, getting that costs several times what copying does, and who pays is a matter of luck.
   */
  async makeRoom(): Promise<void> {
    await rm(this.filename, { force: true });
    if (this.#hostMemory !== undefined) await runProgram(this.#hostMemory, [String(memoryMib)]);
  }
}

/** As a race has it. */
export function figureOf({ seconds, processorSeconds }: Taken): Figure {
  return { figure: seconds, processorSeconds };
}

/** What our program takes. */
export async function convertOnce({ words, source, target }: Conversion): Promise<Taken> {
  await target.makeRoom();
  return takeCowherd('convert', ...words, source, target.filename);
}

function runConversion(conversion: Conversion): Runner {
  return { label: 'cowherd', run: async () => figureOf(await convertOnce(conversion)) };
}

/** The best of its ways, run by run. */
export function runBest({
  words,
  source,
  target,
  ways = orders,
  mostSeconds,
}: Conversion): () => Promise<Taken> {
  const bound = mostSeconds === undefined ? [] : ['timeout', String(mostSeconds)];
  return async () => {
    const taken: Taken[] = [];
    for (const way of ways) {
      const [command, ...parameters] = [...bound, 'qemu-img', 'convert', ...words, ...way];
      const run = async (): Promise<Taken> => {
        await target.makeRoom();
        return take(command, ...parameters, source, target.filename);
      };
      taken.push(await (mostSeconds === undefined ? run() : untilItEnds(run)));
    }
    return taken.reduce((one, other) => (one.seconds <= other.seconds ? one : other));
  };
}

/** What the first run takes that ends. */
async function untilItEnds(run: () => Promise<Taken>): Promise<Taken> {
  for (let attempt = 1; attempt < mostTries; attempt++) {
    const taken = await run().catch(() => undefined);
    if (taken !== undefined) return taken;
    console.error(`qemu-img did not end, for the ${attempt}. time`);
  }
  return run();
}

/** What `runBest` runs. */
export function bestLabel({ ways = orders }: Conversion): string {
  const words = ways.map((way) => (way.length > 0 ? way.join(' ') : 'its defaults'));
  return words.length > 1 ? `qemu-img, the better of ${words.join(' and ')}` : 'qemu-img';
}

/** A race by the clock and by the processors. */
export function converting(name: string, goal: number, conversion: Conversion): Duel {
  const theirs = runBest(conversion);
  return {
    ...{ name, unit: 's', goal, rounds, countsProcessor: true },
    ours: runConversion(conversion),
    peer: { label: bestLabel(conversion), run: async () => figureOf(await theirs()) },
  };
}

/** What a program takes beyond the start of an empty one. */
export async function secondsBeyondStart(taken: () => Promise<Taken>): Promise<number> {
  const { seconds: start } = await takeNode();
  return (await taken()).seconds - start;
}
