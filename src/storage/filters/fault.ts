/** The filter `fault`: chosen operations fail, or are late, to test what happens then. */
import { type CowherdError, errorFromErrno } from '../../errors.js';
import { totalLength } from '../vector.js';
import { describeErrno, errnoNames } from '../../system-errors.js';
import type { StorageFile } from '../storage.js';
import { type Filter, type FilterUse, count, flag, oneOf } from './filter.js';
import {
  FilterFile,
  type Interception,
  type OperationKind,
  type StorageOperation,
} from './filter-file.js';

/** Unit in bytes that a transfer which ends early moves whole. */
const sectorSize = 512;

/** Every kind of operation that can be chosen. */
export const operationKinds: readonly OperationKind[] = [
  'read',
  'write',
  'flush',
  'truncate',
  'allocate',
  'writeZeroes',
  'discard',
  'status',
  'copyFrom',
  'size',
  'close',
];

/** What becomes of a chosen operation. */
export type FaultEffect =
  /** It fails, and nothing was done. */
  | 'none'
  /** It fails after half of the range: a transfer that ended early, and could not be completed. */
  | 'short'
  /** It succeeds, `delayTurns` turns of the event loop late. */
  | 'delay';

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
  /** `none` by default. */
  readonly effect?: FaultEffect;
  /** Turns of the event loop that a delay lasts; 100 by default. */
  readonly delayTurns?: number;
  /** Told of each operation that is chosen, and of the error it is to fail with. */
  readonly onFault?: (operation: StorageOperation, error: CowherdError | undefined) => void;
}

/** Counts operations and decides which fail; shared by all queues of a file, or by several files. */
export class FaultPlan {
  readonly #options: FaultOptions;
  readonly #kinds: ReadonlySet<OperationKind>;
  readonly #count: Int32Array;
  #lifted = false;

  /** @param count a word, zero at first, of all threads that count together */
  constructor(options: FaultOptions, count: Int32Array = new Int32Array(1)) {
    this.#options = options;
    this.#kinds = new Set(options.kinds);
    this.#count = count;
  }

  /** How many operations of the chosen kinds there have been: what a sweep enumerates. */
  get seen(): number {
    return Atomics.load(this.#count, 0);
  }

  /** From now on nothing fails any more. */
  lift(): void {
    this.#lifted = true;
  }

  /** Counts an operation. @returns what becomes of it, or undefined if it is not a chosen one */
  next(
    filename: string,
    operation: StorageOperation,
  ): { readonly effect: FaultEffect; readonly error: CowherdError } | undefined {
    if (!this.#kinds.has(operation.kind)) return undefined;
    const seen = Atomics.add(this.#count, 0, 1) + 1;
    const { nth, forever = false, errno = 'EIO', effect = 'none', onFault } = this.#options;
    const chosen = forever ? seen >= nth : seen === nth;
    if (!chosen || this.#lifted) return undefined;
    const { kind, offset } = operation;
    const error = errorFromErrno(
      errno,
      `Injected fault: ${kind} of '${filename}' at byte ${offset}: ${describeErrno(errno)}`,
      { filename, offset },
    );
    onFault?.(operation, effect === 'delay' ? undefined : error);
    return { effect, error };
  }

  /** Resolves when a delay is over. */
  async delay(): Promise<void> {
    const { delayTurns = 100 } = this.#options;
    for (let turn = 0; turn < delayTurns; turn++) await new Promise(setImmediate);
  }
}

/** See the file's comment. */
export class FaultFile extends FilterFile {
  readonly #plan: FaultPlan;

  constructor(inner: StorageFile, plan: FaultPlan, use?: FilterUse) {
    super(inner, use);
    this.#plan = plan;
  }

  openQueue(): FaultFile {
    return new FaultFile(this.inner.openQueue(), this.#plan);
  }

  protected intercept(operation: StorageOperation): Interception {
    const fault = this.#plan.next(this.filename, operation);
    if (fault === undefined) return undefined;
    const { effect, error } = fault;
    if (effect === 'delay') return this.#plan.delay().then(() => undefined);
    const fails = (): CowherdError => error;
    // As with close(2), the file is closed even if that fails.
    if (operation.kind === 'close') return this.inner.close().then(fails, fails);
    return effect === 'short' ? this.#half(operation).then(fails, fails) : error;
  }

  /** Does the first half of an operation, in whole sectors. */
  async #half({ kind, offset, length, buffers = [] }: StorageOperation): Promise<void> {
    const half = Math.floor(length / 2 / sectorSize) * sectorSize;
    if (half === 0) return;
    if (kind === 'read') await this.inner.readVector(firstBytes(buffers, half), offset);
    else if (kind === 'write') await this.inner.writeVector(firstBytes(buffers, half), offset);
    else if (kind === 'writeZeroes') await this.inner.writeZeroes(offset, half, false);
    else if (kind === 'discard') await this.inner.discard(offset, half);
    else if (kind === 'allocate') await this.inner.allocate(offset, half, 'falloc');
  }
}

const options = {
  /** Which operations fail; others pass. */
  operation: oneOf('which operations fail', 'OPERATION', operationKinds),
  /** The first that fails, counting from 1 since the file was opened; default 1. */
  nth: count('the first that fails, counting from 1; default 1', 1),
  /** Whether all later ones fail too; default false. */
  always: flag('whether all later ones fail too; default off'),
  /** What they fail with, by its symbolic name; default `EIO`. */
  errno: oneOf('what they fail with; default EIO', 'ERRNO', errnoNames, 'an errno such as ENOSPC'),
};

/** See the file's comment. */
export const faultFilter: Filter<'fault', typeof options, 'operation'> = {
  name: 'fault',
  help: 'has operations fail, to see what becomes of it',
  options,
  required: ['operation'],
  words: 1,
  wrap(inner, use) {
    const { operation, nth = 1, always = false, errno = 'EIO' } = use.options;
    const plan = new FaultPlan({ kinds: [operation], nth, forever: always, errno }, use.words);
    return new FaultFile(inner, plan, use);
  },
};

/** The first `length` bytes of buffers, which have that many. */
function firstBytes(buffers: readonly Uint8Array[], length: number): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (const buffer of buffers) {
    const left = length - totalLength(parts);
    if (left > 0) parts.push(buffer.subarray(0, left));
  }
  return parts;
}
