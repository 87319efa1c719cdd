/**
 * What a connection brings, taken apart: heads of a known length, and payloads that go into memory of
 * their own. What a socket brings lands where it belongs if the socket asks where that is (`wanted`).
 */

/** Bytes of heads that are received at once at most. */
const memoryBytes = 256 * 1024;
/** What arrives while nobody takes it goes here, in bytes. */
const asideBytes = 64 * 1024;

/** What comes next. */
type Expected =
  | { readonly kind: 'head'; readonly length: number; readonly take: (head: Buffer) => void }
  | { readonly kind: 'payload'; readonly into: Uint8Array; readonly take: () => void }
  | { readonly kind: 'skip'; readonly take: () => void };

/** See the file's comment. */
export class FrameReader {
  readonly #memory = Buffer.allocUnsafeSlow(memoryBytes);
  /** Where what was received and not taken yet begins and ends in it. */
  #start = 0;
  #end = 0;
  #expected: Expected | undefined;
  /** Bytes of the payload, or of what is skipped, that are there, and how many there will be. */
  #done = 0;
  #total = 0;
  #isPaused = false;
  #isTaking = false;
  /** The memory that the socket was told last. */
  #told: Uint8Array = this.#memory;
  #aside: Buffer | undefined;
  readonly #onFailure: (error: Error) => void;

  /** @param onFailure told what whoever takes something has thrown; nothing more is taken then */
  constructor(onFailure: (error: Error) => void) {
    this.#onFailure = onFailure;
  }

  /** Next comes a head; it is valid until `take` returns. @param length bytes, up to 64 KiB */
  expectHead(length: number, take: (head: Buffer) => void): void {
    this.#expected = { kind: 'head', length, take };
  }

  /** Next comes a payload, all of which goes into `into`. */
  expectPayload(into: Uint8Array, take: () => void): void {
    this.#expected = { kind: 'payload', into, take };
    this.#done = 0;
    this.#total = into.length;
  }

  /** Next come bytes that nobody wants. */
  skip(length: number, take: () => void): void {
    this.#expected = { kind: 'skip', take };
    this.#done = 0;
    this.#total = length;
  }

  /** Whether nothing was received beyond what has been taken. */
  get isEmpty(): boolean {
    return this.#start === this.#end;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Nothing more is taken until `resume`. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Goes on, with what was received already first. @returns whether more is wanted now */
  resume(): boolean {
    this.#isPaused = false;
    this.#takeAll();
    return this.#wantsMore;
  }

  /** Where the next bytes should go: never empty. */
  wanted(): Uint8Array {
    this.#told = this.#place();
    return this.#told;
  }

  /**
   * So many bytes lie where `wanted` said.
   *
   * @returns whether more are wanted now
   */
  took(count: number): boolean {
    const told = this.#told;
    const expected = this.#expected;
    const isPayload =
      expected?.kind === 'payload' &&
      this.#start === this.#end &&
      told.buffer === expected.into.buffer &&
      told.byteOffset === expected.into.byteOffset + this.#done;
    const isNext =
      told.buffer === this.#memory.buffer &&
      told.byteOffset === this.#memory.byteOffset + this.#end;
    if (isPayload) this.#done += count;
    else if (isNext) this.#end += count;
    else if (!this.#keep(told.subarray(0, count))) {
      this.#isPaused = true;
      this.#onFailure(new Error('more has come than is kept'));
    }
    this.#takeAll();
    return this.#wantsMore;
  }

  get #wantsMore(): boolean {
    return !this.#isPaused;
  }

  #place(): Uint8Array {
    const expected = this.#expected;
    if (!this.#isPaused && expected?.kind === 'payload' && this.#start === this.#end) {
      const rest = expected.into.subarray(this.#done);
      if (rest.length > 0) return rest;
    }
    if (this.#start === this.#end) this.#start = this.#end = 0;
    if (this.#end > memoryBytes / 2 && this.#start > 0) this.#moveToBegin();
    if (this.#end < memoryBytes) return this.#memory.subarray(this.#end);
    return (this.#aside ??= Buffer.allocUnsafeSlow(asideBytes));
  }

  #moveToBegin(): void {
    this.#memory.copyWithin(0, this.#start, this.#end);
    this.#end -= this.#start;
    this.#start = 0;
  }

  /** Keeps bytes that came where nothing was expected any more. @returns whether there is room */
  #keep(bytes: Uint8Array): boolean {
    if (this.#end + bytes.length > memoryBytes) this.#moveToBegin();
    if (this.#end + bytes.length > memoryBytes) return false;
    this.#memory.set(bytes, this.#end);
    this.#end += bytes.length;
    return true;
  }

  #takeAll(): void {
    // What is taken may resume it.
    if (this.#isTaking) return;
    this.#isTaking = true;
    try {
      while (!this.#isPaused && this.#takeOne());
    } catch (error) {
      this.#isPaused = true;
      this.#onFailure(error as Error);
    } finally {
      this.#isTaking = false;
    }
  }

  /** @returns whether something was there to be taken */
  #takeOne(): boolean {
    const expected = this.#expected;
    if (expected === undefined) return false;
    if (expected.kind === 'head') {
      if (this.#end - this.#start < expected.length) return false;
      const head = this.#memory.subarray(this.#start, this.#start + expected.length);
      this.#start += expected.length;
      this.#expected = undefined;
      expected.take(head);
      return true;
    }
    const count = Math.min(this.#total - this.#done, this.#end - this.#start);
    if (count > 0) {
      const bytes = this.#memory.subarray(this.#start, this.#start + count);
      if (expected.kind === 'payload') expected.into.set(bytes, this.#done);
      this.#start += count;
      this.#done += count;
    }
    if (this.#done < this.#total) return false;
    this.#expected = undefined;
    expected.take();
    return true;
  }
}
