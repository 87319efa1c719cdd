/** The filter `trace`: tells of every operation, when it is submitted and when it has ended. */
import { appendFileSync, writeSync } from 'node:fs';
import { hostPath } from '../../byte-names.js';
import { errorFromErrno, printable } from '../../errors.js';
import { describeErrno, errnoName } from '../../system-errors.js';
import type { StorageFile } from '../storage.js';
import { type Filter, type FilterUse, path } from './filter.js';
import { FilterFile, type StorageOperation } from './filter-file.js';

/** Told of an operation that has ended, and of why it failed, if it did. */
type Ended = (operation: StorageOperation, microseconds: number, error: Error | null) => void;

/** See the file's comment. */
export class TraceFile extends FilterFile {
  readonly #begun: (operation: StorageOperation) => void;
  readonly #ended: Ended | undefined;
  readonly #use: FilterUse | undefined;
  /** When the operations under way began, in milliseconds. */
  readonly #times = new Map<StorageOperation, number>();

  /** @param begun called before each operation of any queue of this file */
  constructor(
    inner: StorageFile,
    begun: (operation: StorageOperation) => void,
    ended?: Ended,
    use?: FilterUse,
  ) {
    super(inner, use);
    this.#begun = begun;
    this.#ended = ended;
    this.#use = use;
  }

  openQueue(): TraceFile {
    return new TraceFile(this.inner.openQueue(), this.#begun, this.#ended, this.#use);
  }

  protected intercept(operation: StorageOperation): undefined {
    const { kind, offset, length } = operation;
    this.#begun({ kind, offset, length });
    if (this.#ended !== undefined) this.#times.set(operation, performance.now());
  }

  protected override settled(operation: StorageOperation, error: Error | null): void {
    const begunMs = this.#times.get(operation);
    if (begunMs === undefined) return;
    this.#times.delete(operation);
    this.#ended?.(operation, Math.round((performance.now() - begunMs) * 1000), error);
  }
}

const options = {
  /** The file that lines are appended to; default standard error. */
  output: path('the file that lines are appended to; default standard error'),
};

/** See the file's comment. */
export const traceFilter: Filter<'trace', typeof options, never> = {
  name: 'trace',
  help: 'prints a line for each operation: what, where, how long it took, and what came of it',
  options,
  required: [],
  words: 0,
  wrap(inner, use) {
    const { output } = use.options;
    const name = printable(inner.filename);
    const print = output === undefined ? printToStandardError : printerTo(output);
    const ended: Ended = ({ kind, offset, length }, microseconds, error) => {
      const result = error === null ? 'ok' : codeOf(error);
      print(`${name}: ${kind} ${offset}+${length} ${microseconds}us ${result}\n`);
    };
    return new TraceFile(inner, () => undefined, ended, use);
  },
};

/** The errno by its name where a system call failed, else the code of the package. */
function codeOf(error: Error): string {
  const { errno, code } = error as { readonly errno?: number; readonly code?: string };
  return errno === undefined ? (code ?? error.name) : errnoName(errno);
}

const standardError = 2;

/** At once, whichever thread this is, and also where it is a pipe that is full for the moment. */
function printToStandardError(line: string): void {
  const bytes = Buffer.from(line);
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(standardError, bytes, at);
    } catch (error) {
      // Who has closed it does not want to know; a request must not fail for that.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

/** @throws CowherdError if the file cannot be written to */
function printerTo(output: string): (line: string) => void {
  const file = hostPath(output);
  const append = (text: string): void => {
    try {
      appendFileSync(file, text);
    } catch (error) {
      const { code = 'EIO' } = error as NodeJS.ErrnoException;
      const message = `Could not trace to '${output}': ${describeErrno(code)}`;
      throw errorFromErrno(code, message, { filename: output, cause: error });
    }
  };
  append('');
  let hasFailed = false;
  return (line) => {
    if (hasFailed) return;
    try {
      append(line);
    } catch (error) {
      hasFailed = true;
      process.emitWarning(error as Error);
    }
  };
}
