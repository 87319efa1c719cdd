/** A filter that makes chosen operations fail, to test what happens then. */
import { type CowherdError, errorFromErrno } from '../../errors.js';
import { describeErrno } from '../errno.js';
import type { StorageFile } from '../storage.js';
import { FilterFile, type OperationKind, type StorageOperation } from './filter-file.js';

/** Which operations fail. */
export interface FaultOptions {
  /** Kinds that count; others pass. */
  readonly kinds: readonly OperationKind[];
  /** The first that fails, counting from 1 over all queues of the file. */
  readonly nth: number;
  /** Whether all later ones fail too. */
  readonly forever?: boolean;
  /** Symbolic errno to fail with; `EIO` by default. */
  readonly errno?: string;
}

/** Counts operations and decides which fail; shared by all queues of a file. */
export class FaultPlan {
  readonly #options: FaultOptions;
  readonly #kinds: ReadonlySet<OperationKind>;
  #seen = 0;

  constructor(options: FaultOptions) {
    this.#options = options;
    this.#kinds = new Set(options.kinds);
  }

  /** How many operations of the chosen kinds there have been: what a sweep enumerates. */
  get seen(): number {
    return this.#seen;
  }

  /** Counts an operation. @returns the error it is to fail with, or undefined */
  next(filename: string, operation: StorageOperation): CowherdError | undefined {
    if (!this.#kinds.has(operation.kind)) return undefined;
    this.#seen += 1;
    const { nth, forever = false, errno = 'EIO' } = this.#options;
    if (this.#seen < nth || (this.#seen > nth && !forever)) return undefined;
    const { kind, offset } = operation;
    return errorFromErrno(
      errno,
      `Injected fault: ${kind} of '${filename}' at byte ${offset}: ${describeErrno(errno)}`,
      { filename, offset },
    );
  }
}

/** See the file's comment. */
export class FaultFile extends FilterFile {
  readonly #plan: FaultPlan;

  constructor(inner: StorageFile, plan: FaultPlan) {
    super(inner);
    this.#plan = plan;
  }

  openQueue(): FaultFile {
    return new FaultFile(this.inner.openQueue(), this.#plan);
  }

  protected intercept(operation: StorageOperation): CowherdError | undefined {
    return this.#plan.next(this.filename, operation);
  }
}
