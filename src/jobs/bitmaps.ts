/** Copying the persistent bitmaps of a source into the target of its conversion. */
import { CowherdError, printable, problemWith } from '../errors.js';
import type { Image } from '../image/api/image.js';
import type { BitmapState } from '../image/api/reports.js';

/** What a conversion says of bitmaps. */
export interface BitmapCopyOptions {
  readonly skipBrokenBitmaps?: boolean | undefined;
  readonly onWarning?: ((message: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The bitmaps of a source that can be copied.
 *
 * @param sources of which only one can be
 * @throws ERR_COWHERD_UNSUPPORTED for a source that can have none, or has one that was in use
 */
export async function bitmapsToCopy(
  sources: readonly Image[],
  filename: string,
  { skipBrokenBitmaps = false }: BitmapCopyOptions,
): Promise<readonly BitmapState[]> {
  if (sources.length > 1) {
    throw refusal(filename, 'Copying bitmaps only possible with single source');
  }
  const source = sources.at(0);
  if (source === undefined || !(await canHaveBitmaps(source))) {
    throw refusal(source?.filename ?? filename, 'Source lacks bitmap support');
  }
  const bitmaps = await source.bitmaps.list();
  const broken = bitmaps.findLast(({ isInconsistent }) => isInconsistent);
  if (broken === undefined || skipBrokenBitmaps) return bitmaps;
  throw refusal(
    source.filename,
    `Cannot copy inconsistent bitmap '${printable(broken.name)}'`,
    "Try --skip-broken-bitmaps, or use 'cowherd bitmap --remove' to delete it",
  );
}

/** Refuses a target that can have no bitmaps. */
export async function checkBitmapTarget(target: Image): Promise<void> {
  if (await canHaveBitmaps(target)) return;
  throw refusal(target.filename, `Format driver '${target.format}' does not support bitmaps`);
}

/** Adds bitmaps of a source to a target, which has the disk already. */
export async function copyBitmaps(
  source: Image,
  bitmaps: readonly BitmapState[],
  target: Image,
  { onWarning, signal }: BitmapCopyOptions,
): Promise<void> {
  for (const { name } of bitmaps.filter(({ isInconsistent }) => isInconsistent).reverse()) {
    onWarning?.(`Skipping inconsistent bitmap '${printable(name)}'`);
  }
  for (const { name, granularity, isEnabled, isInconsistent } of bitmaps) {
    if (isInconsistent) continue;
    const failed = (attempt: string) => (error: unknown) => {
      throw error instanceof CowherdError
        ? refusal(
            target.filename,
            `Failed to ${attempt} bitmap ${name}: ${error.why ?? error.message}`,
          )
        : error;
    };
    const add = target.bitmaps.add(name, { granularity, disabled: !isEnabled, signal });
    await add.catch(failed('create'));
    try {
      await target.bitmaps.merge(name, { image: source, name }, { signal });
    } catch (error) {
      await target.bitmaps.remove(name).catch(() => undefined);
      failed('populate')(error);
    }
  }
}

async function canHaveBitmaps(image: Image): Promise<boolean> {
  return (await image.info()).bitmaps !== undefined;
}

function refusal(filename: string, why: string, hint?: string): CowherdError {
  const operation = 'copy bitmaps';
  return problemWith('ERR_COWHERD_UNSUPPORTED', filename, why, { operation, hint });
}
