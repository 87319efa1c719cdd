/**
 * Options by which images and files are opened, each defined once: for lists of options and `json:` names,
 * for what programs may give, and for the help.
 */
import { parseSize } from '../size.js';
import { parseSwitch } from '../switch.js';

/** What kind of value an option takes. */
export type OpenOptionType = 'switch' | 'size' | 'seconds' | 'text' | readonly string[];

/** See the file's comment. */
export interface OpenOption {
  /** QEMU's name. */
  readonly name: string;
  readonly type: OpenOptionType;
  /** One line. */
  readonly help: string;
  /**
   * The member of the library's options that it sets, with the one it lies in and a dot in front where it
   * lies in one; left out where it is taken, and changes nothing that can be seen.
   */
  readonly key?: string;
  /** What a value means to the library, if that is not the value; undefined sets nothing. */
  readonly means?: (value: unknown) => unknown;
  /** Values that can be kept of an image that is written to; left out for all. */
  readonly keeps?: readonly unknown[];
  /** Another name of it, and what is said where the two have values that differ. */
  readonly other?: {
    readonly name: string;
    readonly conflict: (value: string, other: string) => string;
  };
  /** Why a value that is not of its type is refused, where QEMU has words of its own for that. */
  readonly refusal?: (text: string) => string;
}

/** A text as the value of an option. @returns why it is none, in QEMU's words, as `refused` */
export function parseOpenOption(
  { type, refusal }: OpenOption,
  name: string,
  text: string,
): { readonly value: unknown } | { readonly refused: string } {
  const value = valueOf(type, text);
  if (value !== undefined) return { value };
  if (refusal !== undefined) return { refused: refusal(text) };
  if (type === 'switch') return { refused: `Parameter '${name}' expects 'on' or 'off'` };
  if (type === 'size' || type === 'seconds')
    return { refused: `Parameter '${name}' expects a size` };
  return { refused: `Parameter '${name}' does not accept value '${text}'` };
}

function valueOf(type: OpenOptionType, text: string): unknown {
  if (type === 'text') return text;
  if (type === 'switch') return parseSwitch(text);
  if (type !== 'size' && type !== 'seconds') return type.find((each) => each === text);
  const size = parseSize(text);
  return typeof size === 'bigint' ? Number(size) : undefined;
}
