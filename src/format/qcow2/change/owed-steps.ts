/**
 * Steps that follow from a change of an image that was made, or has failed, such as giving up the clusters that
 * nothing points at any more. Where a device fails one, it is done again before the next change, or at the end.
 */
export class OwedSteps {
  readonly #steps: (() => Promise<void>)[] = [];

  /** Whether all has been done. */
  get isEmpty(): boolean {
    return this.#steps.length === 0;
  }

  /** Does steps now, each once; before the next change or at the end, if they cannot be done now. */
  async later(...steps: readonly (() => Promise<void>)[]): Promise<void> {
    this.#steps.push(...steps);
    await this.settle().catch(() => undefined);
  }

  /** Does what has been left to be done. */
  async settle(): Promise<void> {
    for (let step; (step = this.#steps.at(0)) !== undefined; this.#steps.shift()) await step();
  }
}
