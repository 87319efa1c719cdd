/** What the fuzzer tries: how cases are made, judged, made smaller and told apart. */
import type { Random } from '../stress/random.js';
import type { JudgeThread } from './judge-thread.js';

/** See the file's comment. */
export interface Ground<Case, Verdict> {
  readonly name: string;
  /** File of the cases that are kept. */
  readonly corpusPath: string;
  /** Cases that a thread judges at a time. */
  readonly batchSize: number;
  readonly thread: JudgeThread<Case, Verdict>;
  draw(random: Random): Case;
  /** Of how many parts a case is made. */
  partsOf(each: Case): number;
  /** The case without one of them. */
  without(each: Case, part: number): Case;
  /** What cases have in common of which a few are enough. */
  likenessOf(each: Case & { readonly verdict: Verdict }): string;
  /** The kind of outcome that is counted. */
  outcomeOf(verdict: Verdict): string;
}
