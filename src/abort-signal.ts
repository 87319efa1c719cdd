/** What cancels long work, whichever library declares its type. */

/** The `AbortSignal` of Node's types or the DOM's, or what is needed of it where there are neither. */
export type AbortSignalLike = typeof globalThis extends {
  AbortSignal: { prototype: infer Declared };
}
  ? Declared
  : {
      readonly aborted: boolean;
      readonly reason: unknown;
      throwIfAborted(): void;
      addEventListener(type: 'abort', listener: () => void): void;
      removeEventListener(type: 'abort', listener: () => void): void;
    };
