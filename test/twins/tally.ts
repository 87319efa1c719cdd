/** What was tried, by operation. */

/** How often one operation was tried, and what came of it. */
interface Figures {
  steps: number;
  /** Refused by both programs, in the same words. */
  refused: number;
  different: number;
}

/** Figures of many pairs. */
export class TwinTally {
  images = 0;
  steps = 0;
  /** Steps after which all data of the disk lay where QEMU's do. */
  samePlaces = 0;
  different = 0;
  /** Rounds that ended because the real tool did, by an assertion of its own. */
  aborted = 0;
  /** Rounds that ended because the real tool's image leaked, and ours did not. */
  leaked = 0;
  readonly #byOperation = new Map<string, Figures>();

  /** Counts a step that both programs did, or refused. */
  add(operation: string, isDone: boolean): void {
    const figures = this.#of(operation);
    figures.steps++;
    this.steps++;
    if (!isDone) figures.refused++;
  }

  /** Counts a step after which something was different. */
  addDifference(operation: string): void {
    this.#of(operation).different++;
    this.different++;
  }

  /** One line. */
  sum(): string {
    return (
      `${this.steps} steps over ${this.images} images, ${this.different} different; ` +
      `data at the same places after ${this.samePlaces}; ` +
      `${this.aborted} images given up where an assertion of QEMU failed, ` +
      `${this.leaked} where its image leaked`
    );
  }

  #of(operation: string): Figures {
    const figures = this.#byOperation.get(operation) ?? { steps: 0, refused: 0, different: 0 };
    this.#byOperation.set(operation, figures);
    return figures;
  }

  /** A table, and a line of sums. */
  lines(): readonly string[] {
    const rows = [...this.#byOperation].sort(([one], [next]) => (one < next ? -1 : 1));
    const row = (cells: readonly (string | number)[]): string =>
      String(cells[0]).padEnd(18) +
      cells
        .slice(1)
        .map((cell) => String(cell).padStart(10))
        .join('');
    return [
      row(['operation', 'steps', 'refused', 'different']),
      ...rows.map(([name, each]) => row([name, each.steps, each.refused, each.different])),
      this.sum(),
    ];
  }
}
