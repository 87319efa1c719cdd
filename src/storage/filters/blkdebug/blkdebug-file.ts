/** A file of which requests fail by rules, and that hears what is done above it. */
import type { CowherdError } from '../../../errors.js';
import { operationError } from '../../file/errno.js';
import type { EventHearer, StorageFile, StorageLimits } from '../../storage.js';
import type { FilterUse } from '../filter.js';
import {
  FilterFile,
  type Interception,
  type OperationKind,
  type StorageOperation,
} from '../filter-file.js';
import type { IoType } from './events.js';
import { Breakpoints } from './breakpoints.js';
import { RuleBook, type Rules } from './rules.js';

/** What requests below the filter keep to, in bytes; 0, or left out, where that is what is below. */
export interface RequestLimits {
  readonly align?: number | undefined;
  readonly maxTransfer?: number | undefined;
  readonly optWriteZero?: number | undefined;
  readonly maxWriteZero?: number | undefined;
  readonly optDiscard?: number | undefined;
  readonly maxDiscard?: number | undefined;
}

/** The kinds of requests that rules are about. */
const typeOf: Readonly<Partial<Record<OperationKind, IoType>>> = {
  read: 'read',
  write: 'write',
  copyFrom: 'write',
  writeZeroes: 'write-zeroes',
  discard: 'discard',
  flush: 'flush',
  status: 'block-status',
};

/** What is attempted, for messages. */
const attempts: Readonly<Record<IoType, string>> = {
  read: 'read from',
  write: 'write to',
  'write-zeroes': 'write zeroes to',
  discard: 'discard',
  flush: 'flush',
  'block-status': 'look for holes in',
};

/** The events that requests are themselves. */
const eventOf: Readonly<Partial<Record<OperationKind, string>>> = {
  write: 'pwritev',
  copyFrom: 'pwritev',
  writeZeroes: 'pwritev_zero',
};

/** What all queues of one thread share: the rules, and where requests are stopped. */
export class DebugState implements EventHearer {
  readonly rules: RuleBook;
  readonly breakpoints = new Breakpoints();

  constructor(rules: Rules, words: Int32Array) {
    this.rules = new RuleBook(rules, words);
    this.rules.open();
  }

  hear(event: string): Promise<void> | undefined {
    this.rules.hear(event);
    return this.breakpoints.hear(event);
  }
}

/** See the file's comment. */
export class BlkdebugFile extends FilterFile {
  readonly #state: DebugState;
  readonly #requests: RequestLimits;

  constructor(inner: StorageFile, state: DebugState, requests: RequestLimits, use?: FilterUse) {
    super(inner, use);
    this.#state = state;
    this.#requests = requests;
  }

  override get events(): DebugState {
    return this.#state;
  }

  override get limits(): StorageLimits {
    const { limits } = this.inner;
    const { align = 0 } = this.#requests;
    return align > 0 ? { ...limits, requestAlignment: align } : limits;
  }

  openQueue(): BlkdebugFile {
    return new BlkdebugFile(this.inner.openQueue(), this.#state, this.#requests);
  }

  /** What is not aligned is written as data. */
  override async writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    const { optWriteZero = 0, maxWriteZero = 0 } = this.#requests;
    if (!isRange(offset, length)) return super.writeZeroes(offset, length, unmap);
    for (const piece of pieces(offset, length, optWriteZero, maxWriteZero)) {
      if (piece.isAligned) await super.writeZeroes(piece.offset, piece.length, unmap);
      else await this.write(new Uint8Array(piece.length), piece.offset);
    }
  }

  /** What has no whole unit of `align` is left. */
  override async discard(offset: number, length: number): Promise<boolean> {
    const { align = 0, optDiscard = 0, maxDiscard = 0 } = this.#requests;
    if (!isRange(offset, length)) return super.discard(offset, length);
    let isZero = true;
    for (const whole of pieces(offset, length, align, 0)) {
      for (const piece of pieces(whole.offset, whole.length, optDiscard, maxDiscard)) {
        const isGone = whole.isAligned && (await super.discard(piece.offset, piece.length));
        isZero &&= isGone;
      }
    }
    return isZero;
  }

  protected intercept({ kind, offset, length }: StorageOperation): Interception {
    const type = typeOf[kind];
    if (type === undefined) return undefined;
    const event = eventOf[kind];
    const heard = event === undefined ? undefined : this.#state.hear(event);
    const fail = (): CowherdError | undefined => {
      const errno = this.#state.rules.failureOf(type, offset, length);
      const place = kind === 'flush' ? undefined : offset;
      if (errno === undefined) return undefined;
      return operationError(attempts[type], this.filename, place, errno);
    };
    return heard === undefined ? fail() : heard.then(fail);
  }

  protected override settled({ kind }: StorageOperation): void {
    if (eventOf[kind] !== undefined) void this.#state.hear('pwritev_done');
  }
}

/** Whether a range can be cut into pieces; others are passed on as they are. */
function isRange(offset: number, length: number): boolean {
  return offset >= 0 && length > 0 && Number.isSafeInteger(offset + length);
}

interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly isAligned: boolean;
}

/** A range in pieces of at most `most` bytes, those that are aligned apart from what lies around them. */
function* pieces(offset: number, length: number, align: number, most: number): Generator<Piece> {
  const unit = Math.max(1, align);
  const end = offset + length;
  const first = Math.min(end, Math.ceil(offset / unit) * unit);
  const last = Math.max(first, Math.floor(end / unit) * unit);
  if (first > offset) yield { offset, length: first - offset, isAligned: false };
  const step = most > 0 ? most : Math.max(1, last - first);
  for (let at = first; at < last; at += step) {
    yield { offset: at, length: Math.min(step, last - at), isAligned: true };
  }
  if (end > last) yield { offset: last, length: end - last, isAligned: false };
}
