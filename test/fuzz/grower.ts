/** Adds cases to a corpus that have few like them there, without the parts that make no difference. */
import { writeFile } from 'node:fs/promises';
import { readCorpus } from './corpus.js';
import type { Ground } from './ground.js';

/** Cases of a kind that the corpus has at most. */
const mostAlike = 3;
/** Times that a case has to end the same before it is kept. */
const repetitions = 3;

/** See the file's comment. */
export class Grower<Case, Verdict> {
  readonly #ground: Ground<Case, Verdict>;
  readonly #corpus: (Case & { readonly verdict: Verdict })[];
  readonly #known = new Map<string, number>();

  private constructor(
    ground: Ground<Case, Verdict>,
    corpus: (Case & { readonly verdict: Verdict })[],
  ) {
    this.#ground = ground;
    this.#corpus = corpus;
    for (const each of corpus) this.#count(each);
  }

  static async open<Case, Verdict>(ground: Ground<Case, Verdict>): Promise<Grower<Case, Verdict>> {
    return new Grower(ground, await readCorpus(ground.corpusPath));
  }

  async grow(found: Case, verdict: Verdict): Promise<void> {
    const ground = this.#ground;
    if ((this.#known.get(ground.likenessOf({ ...found, verdict })) ?? 0) >= mostAlike) return;
    for (let count = 1; count < repetitions; count++) {
      if (!(await this.#endsIn(found, verdict))) return;
    }
    let least = found;
    for (let part = ground.partsOf(found) - 1; part >= 0; part--) {
      const lesser = ground.without(least, part);
      if (await this.#endsIn(lesser, verdict)) least = lesser;
    }
    if (ground.partsOf(least) === 0) return;
    const kept = { ...least, verdict };
    this.#count(kept);
    this.#corpus.push(kept);
  }

  /** @returns how many cases there are now */
  async write(): Promise<number> {
    const lines = this.#corpus.map((each) => `  ${JSON.stringify(each)}`);
    await writeFile(this.#ground.corpusPath, `[\n${lines.join(',\n')}\n]\n`);
    return this.#corpus.length;
  }

  #count(each: Case & { readonly verdict: Verdict }): void {
    const likeness = this.#ground.likenessOf(each);
    this.#known.set(likeness, (this.#known.get(likeness) ?? 0) + 1);
  }

  async #endsIn(each: Case, wanted: Verdict): Promise<boolean> {
    const [{ verdict }] = await this.#ground.thread.judgeAll([each]);
    return verdict !== undefined && JSON.stringify(verdict) === JSON.stringify(wanted);
  }
}
