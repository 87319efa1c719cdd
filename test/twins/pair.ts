/** Two folders with the same images: in one this program works, in the other the real tools do. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { runCowherd } from '../support/both-tools.js';
import type { RunResult } from '../support/tools.js';
import { runPeer } from './peer.js';

/** What both programs did with one command line. */
export interface Outcome {
  readonly mine: RunResult;
  readonly theirs: RunResult;
}

/** The folders of a pair. */
export class Pair {
  readonly mine: string;
  readonly theirs: string;
  /** Whether something was done by which ours may be stored in another way. */
  isStoredOtherwise = false;
  /** Whether something was done by which other ranges of ours may be recorded in bitmaps. */
  isRecordedOtherwise = false;

  private constructor(folder: string) {
    this.mine = path.join(folder, 'mine');
    this.theirs = path.join(folder, 'theirs');
  }

  /** Makes empty ones. */
  static async make(folder: string): Promise<Pair> {
    const pair = new Pair(folder);
    for (const each of [pair.mine, pair.theirs]) await mkdir(each, { recursive: true });
    return pair;
  }

  /** Gives both programs the same words, each in its folder; or both in this program's. */
  async run(words: readonly string[], isReport = false): Promise<Outcome> {
    const [theirs, mine] = await Promise.all([
      runPeer(words, isReport ? this.mine : this.theirs),
      runCowherd(words, this.mine),
    ]);
    return { mine, theirs };
  }
}
