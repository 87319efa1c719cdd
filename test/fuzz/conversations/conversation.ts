/** What a hostile peer says, as data: drawn at random, repeated exactly, kept in the corpus. */
import type { Random } from '../../stress/random.js';

/** All that one peer says, step by step. Bytes are in hexadecimal. */
export interface Said {
  readonly steps: readonly unknown[];
}

/** Bytes of a step: some given, then as many of one kind as wanted. */
export interface Bytes {
  /** In hexadecimal. */
  readonly given: string;
  /** Bytes of value 5 behind them. */
  readonly more?: number;
}

/** One conversation, with one of the sides that are tried. */
export interface Conversation {
  readonly protocol: string;
  readonly said: Said;
}

/** What listens to conversations. */
export interface Listener {
  /**
   * Has a peer say something.
   *
   * @returns what came of it, in one line
   * @throws if something happened that must not: a wait without end, an error of ours, others not served
   */
  judge(said: Said): Promise<string>;
  /** Ends it. @throws if something is wrong with what it served */
  close(): Promise<void>;
}

/** A side of a protocol that meets hostile peers. */
export interface Protocol {
  draw(random: Random): Said;
  listen(): Promise<Listener>;
}

/** The bytes of a step. */
export function bytesOf({ given, more = 0 }: Bytes): Buffer {
  return Buffer.concat([Buffer.from(given, 'hex'), Buffer.alloc(more, 5)]);
}

/** A number of so many bytes, big-endian, in hexadecimal. */
export function hex(value: number | bigint, bytes: number): string {
  return BigInt.asUintN(bytes * 8, BigInt(value))
    .toString(16)
    .padStart(bytes * 2, '0');
}

/** The bytes of a text, in hexadecimal. */
export function text(words: string): string {
  return Buffer.from(words).toString('hex');
}

/** Changes a few bytes of some steps, or cuts one, now and then. */
export function damaged(steps: readonly Bytes[], random: Random): Bytes[] {
  const all = steps.map((step) => ({ ...step }));
  if (all.length === 0 || random.chance(0.5)) return all;
  for (let count = 1 + random.below(3); count > 0; count--) {
    const step = random.pick(all);
    const bytes = Buffer.from(step.given, 'hex');
    if (bytes.length === 0) continue;
    const at = random.below(bytes.length);
    if (random.chance(0.1)) {
      step.given = bytes.toString('hex', 0, at);
    } else {
      const change = Buffer.from(random.pick(changes)(random), 'hex');
      bytes.set(change.subarray(0, bytes.length - at), at);
      step.given = bytes.toString('hex');
    }
  }
  return all;
}

const changes: readonly ((random: Random) => string)[] = [
  (random) => random.below(256).toString(16).padStart(2, '0'),
  () => 'ffffffff',
  () => '7fffffffffffffff',
  () => '00000000',
  () => '80000000',
];

/** A number that stands at an edge of something, as often as not. */
export function edgeNumber(random: Random): number {
  const edge = random.pick([0, 1, 511, 512, 4095, 4096, 65_535, 65_536, 1 << 20, 8 << 20, 2 ** 32]);
  return Math.max(0, edge + random.pick([-1, 0, 0, 0, 1]));
}

/**
 * Waits for something that has a bound.
 *
 * @param what it is, for the failure
 * @throws if it takes more than 20 seconds
 */
export async function within<Result>(what: string, done: Promise<Result>): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`it takes too long: ${what}`));
    }, 20_000);
  });
  try {
    return await Promise.race([done, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * What was told of a peer, as a verdict.
 *
 * @param most lines that may be told
 * @throws if there are more, or one speaks of our program instead of the peer
 */
export function verdictOf(problems: readonly string[], most = 1): string {
  for (const problem of problems) {
    if (/undefined|not a function|\bNaN\b|\n|internal/.test(problem)) throw new Error(problem);
  }
  if (problems.length > most) throw new Error(`several lines: ${problems.join('; ')}`);
  return problems.length > 0 ? problems.join('; ') : 'nothing is told';
}
