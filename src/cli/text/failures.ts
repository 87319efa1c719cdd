/** Failures in qemu-img's words, made of what the library says of them. */
import { CowherdError, type Operation } from '../../errors.js';
import { BlockStatusError } from '../../jobs/block-status.js';

/** A file as the command line has it. */
export interface NamedFile {
  /** As given. */
  readonly given: string;
  readonly path: string;
}

/** Of an image that could not be opened. */
export function openingText(file: NamedFile, error: CowherdError): string {
  const text = `Could not open '${file.given}': ${openingReason(file, error)}`;
  return error.hint === undefined ? text : `${text}\n${error.hint}`;
}

/**
 * Why an image of a path could not be opened. Failures of the image's own file keep its name, since qemu-img tells
 * them as those of a layer below.
 */
export function openingReason({ path }: Pick<NamedFile, 'path'>, error: CowherdError): string {
  const { operation, role, why, filename, message } = error;
  const isOfImage = operation === 'open' && role === 'image' && filename === path;
  const isAbove = operation === 'open' && role === 'backing' && filename === path;
  return isOfImage || isAbove ? (why ?? message) : message;
}

/** What damage an image was found to have, told before the failure that it led to; undefined if it did not. */
export function damageText({ damage }: CowherdError): string | undefined {
  if (damage === undefined) return undefined;
  return `qcow2: Image is corrupt: ${damage}; further non-fatal corruption events will be suppressed`;
}

/**
 * Of work on an image and those it stands on.
 *
 * @param isBrief whether which file failed where is left out
 */
export function jobText(error: CowherdError, image: NamedFile, isBrief = false): string {
  const { operation, code, message, reason = message, why = message } = error;
  if (operation === 'open') return openingText(image, error);
  if (code === 'ERR_COWHERD_BACKING') return why;
  if (operation === 'empty') return isBrief ? `Failed to empty ${image.given}: ${reason}` : message;
  const isShort = isBrief || code === 'ERR_COWHERD_UNSUPPORTED';
  return `Block job failed: ${isShort ? reason : message}`;
}

/**
 * Of an image that was to stand on another one.
 *
 * @param backing the name of that one
 */
export function rebaseText(error: CowherdError, image: NamedFile, backing: string): string {
  const { operation, role, message, why = message } = error;
  if (operation === 'name backing') {
    return `Could not change the backing file to '${backing}': ${why}`;
  }
  if (operation !== 'open') return error.code === 'ERR_COWHERD_UNSUPPORTED' ? why : message;
  if (role !== 'new backing') return openingText(image, error);
  const { cause, filename = '' } = error;
  const reason = cause instanceof CowherdError ? openingReason({ path: filename }, cause) : message;
  return `Could not open new backing file '${backing}': ${reason}`;
}

/** Of what was to be done with a persistent bitmap of an image, by their names as given. */
export function bitmapText(
  error: CowherdError,
  { action, bitmap, image }: Readonly<Record<'action' | 'bitmap' | 'image', string>>,
): string {
  const attempt = `Operation ${action} on bitmap ${bitmap} failed`;
  const text = `${attempt}: ${bitmapReason(error, bitmap, image)}`;
  return error.hint === undefined ? text : `${text}\n${error.hint}`;
}

/** Why, where qemu-img has a name of its own making for the image that nobody has given it. */
function bitmapReason(error: CowherdError, bitmap: string, image: string): string {
  const { operation, reason = '', message, why = message } = error;
  if (operation !== 'store bitmap') return why;
  return why === reason
    ? `Can't make bitmap '${bitmap}' persistent in '${image}': ${reason}`
    : `Can't store persistent bitmaps to ${image}: ${reason}`;
}

/** The image that a conversion writes. */
export interface NamedTarget extends NamedFile {
  readonly format: string;
  /** Whether it was to be made. */
  readonly created: boolean;
}

/** What changes a file. */
const changes: readonly (Operation | undefined)[] = [
  'write',
  'write zeroes',
  'allocate',
  'resize',
  'discard',
  'flush',
  'copy',
];

/**
 * Of a conversion, as far as it is known which file failed.
 *
 * @param isBrief whether of failing writes only the reason is told
 */
export function conversionText(
  error: CowherdError,
  sources: readonly NamedFile[],
  target?: NamedTarget,
  isBrief = false,
): string {
  const { operation, filename, offset, message, why = message, reason = message } = error;
  if (operation === 'copy bitmaps') return error.hint === undefined ? why : `${why}\n${error.hint}`;
  if (operation === 'load snapshot') return `Failed to load snapshot: ${why}`;
  if (error instanceof BlockStatusError && offset !== undefined) {
    return `error while reading block status at offset ${offset}: ${reason}`;
  }
  // What names no file is about the options of the one to be made.
  if (target !== undefined && (filename === undefined || filename === target.path)) {
    return targetText(error, target, isBrief);
  }
  if (error.code === 'ERR_COWHERD_CHECKSUM') return message;
  if (offset !== undefined) {
    // Sources are only read, so this is about the target's data file.
    return changes.includes(operation)
      ? `error while writing at byte ${offset}: ${isBrief ? reason : message}`
      : `error while reading at byte ${offset}: ${reason}`;
  }
  const source = sources.find(({ path }) => path === filename);
  return source === undefined ? message : openingText(source, error);
}

function targetText(error: CowherdError, target: NamedTarget, isBrief: boolean): string {
  const { operation, role, offset, message, why, reason = message } = error;
  if (operation === 'open' && role === 'backing') return openingText(target, error);
  if (offset !== undefined)
    return `error while writing at byte ${offset}: ${isBrief ? reason : message}`;
  if (target.created) {
    return `${target.given}: error while converting ${target.format}: ${why ?? message}`;
  }
  return operation === 'open' || why === undefined ? openingText(target, error) : why;
}
