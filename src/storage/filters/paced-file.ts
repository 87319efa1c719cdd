/** What filters share that hold requests back until their time has come. */
import { setTimeout as sleep } from 'node:timers/promises';
import { monotonicMs } from '../../clock.js';
import type { BudgetMemory } from '../../rate-budget.js';
import type { StorageFile } from '../storage.js';
import type { FilterUse } from './filter.js';
import { FilterFile, type Interception, type StorageOperation } from './filter-file.js';

/** How long an operation has to wait: spends what it costs. */
export type Pace = (operation: StorageOperation, nowMs: number) => number;

/** Shared words as budgets use them. */
export function budgetMemory(words: Int32Array): BudgetMemory {
  return {
    load: (index) => Atomics.load(words, index),
    compareExchange: (index, expected, value) =>
      Atomics.compareExchange(words, index, expected, value),
  };
}

/** A file whose operations wait until their budgets have what they cost. */
export class PacedFile extends FilterFile {
  readonly #use: FilterUse;
  readonly #pace: Pace;

  constructor(inner: StorageFile, use: FilterUse, pace: Pace) {
    super(inner, use);
    this.#use = use;
    this.#pace = pace;
  }

  openQueue(): PacedFile {
    return new PacedFile(this.inner.openQueue(), this.#use, this.#pace);
  }

  protected intercept(operation: StorageOperation): Interception {
    const waitMs = this.#pace(operation, monotonicMs() | 0);
    return waitMs < 1 ? undefined : sleep(waitMs, undefined);
  }
}
