/** Work of one thread that is done one piece after the other, in the order in which it was asked for. */

/** See the file's comment. */
export class OneAtATime {
  #last: Promise<unknown> = Promise.resolve();

  /** Does a piece of work once those before it have ended, however they did. */
  run<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
