/** What the commands that read and write have in common: how requests run, fail and are told of. */
import { CowherdError } from '../../errors.js';
import type { Exerciser } from './exerciser.js';
import { IoFailure, reasonOf } from './failure.js';
import { figures } from './figures.js';
import type { IoWords } from './io-command.js';

/** A request, as far as it is told of. */
export interface ToldRequest {
  /** What was done: `read`, `wrote`, `discard`. */
  readonly verb: string;
  /** What is said to have failed if it does. */
  readonly what: string;
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly words: IoWords;
}

/** What is done with a request that has ended well, before its figures are printed. */
export type Examination = () => Promise<boolean> | boolean;

/**
 * Runs a request and prints its figures.
 *
 * @param examine whether all is as it should be; figures are printed also where it is not
 * @param show prints what is to be seen of a request that is not quiet
 * @throws IoFailure
 */
export async function perform(
  exerciser: Exerciser,
  { verb, what, offset, length, words }: ToldRequest,
  request: () => Promise<void>,
  examine: Examination = () => true,
  show?: () => Promise<void>,
): Promise<void> {
  const begin = performance.now();
  try {
    await request();
  } catch (error) {
    throw requestFailure(exerciser, what, error);
  }
  const seconds = (performance.now() - begin) / 1000;
  const isGood = await examine();
  if (!words.has('q')) {
    await show?.();
    const isTerse = words.has('C');
    await exerciser.print(figures({ verb, offset, length, seconds, isTerse }));
  }
  if (!isGood) throw new IoFailure();
}

/** What is said of a request that failed. */
export function requestFailure(exerciser: Exerciser, what: string, error: unknown): unknown {
  if (!(error instanceof CowherdError)) return error;
  exerciser.tellDamage(error);
  return new IoFailure(`${what} failed: ${reasonOf(error)}`);
}

/** Lets a request run on; its failure is said when it comes, and is none of its command. */
export function runOn(exerciser: Exerciser, request: Promise<void>): void {
  exerciser.runOn(request.catch((error: unknown) => exerciser.tell(error)));
}
