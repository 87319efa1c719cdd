/** Reading the sources of a conversion in order, for what is no image. */
import { readParts } from './content.js';
import { type ConversionSource, openConversionSource } from './conversion-source.js';
import { type ConvertOptions, sourceOpening } from './convert-options.js';
import { checkDigests } from './source-digests.js';

/**
 * Reads one or several images as one disk, the way `convert` does.
 *
 * @param work is given the disk in order: bytes, which are its until it asks for more, or if it wants the
 *   disk sparse, the length of a run of zeroes; of a source that comes once, that in any case
 * @throws CowherdError; ERR_COWHERD_ABORTED if the signal said so
 */
export async function readDisk(
  sources: readonly ConversionSource[],
  options: ConvertOptions,
  work: (disk: (isSparse: boolean) => AsyncIterable<Uint8Array | number>) => Promise<void>,
): Promise<void> {
  const { signal, onProgress } = options;
  const opened = await openConversionSource(sources, sourceOpening(options));
  try {
    const { progress, content } = opened;
    if (content === undefined) {
      await checkDigests(opened, options);
      await work((isSparse) => readParts(opened.parts, isSparse, { signal, onProgress }));
    } else {
      const report = (): void => {
        onProgress?.(progress!());
      };
      await work(() => reporting(content(), report));
      await checkDigests(opened, options);
    }
  } finally {
    await opened.close();
  }
}

async function* reporting<Piece>(
  pieces: AsyncIterable<Piece>,
  report: () => void,
): AsyncGenerator<Piece> {
  for await (const piece of pieces) {
    yield piece;
    report();
  }
}
