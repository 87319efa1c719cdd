/** Conversions whose target takes bytes in order only, such as a pipe. */
import { createSequential } from '../image/graph/create.js';
import { defaultFormatName } from '../image/names/formats.js';
import { type ConversionSource, openConversionSource } from './conversion-source.js';
import { copyInto } from './convert.js';
import { type ConvertOptions, sourceOpening } from './convert-options.js';
import { checkDigests } from './source-digests.js';

/**
 * Copies the guest content of one or several images into a new one, whose bytes are given out in order.
 *
 * @param name what failures call the target
 * @param send takes the next bytes
 * @param options of a target in a format that is written from its begin to its end
 * @throws CowherdError; what was given out then is no image
 */
export async function convertToStream(
  sources: readonly ConversionSource[],
  name: string,
  send: (bytes: Uint8Array) => Promise<void>,
  options: ConvertOptions,
): Promise<void> {
  let opened = await openConversionSource(sources, sourceOpening(options));
  try {
    if (opened.size === undefined) opened = await opened.spooled();
    const isKnown = opened.progress === undefined;
    if (isKnown) await checkDigests(opened, options);
    const { signal, to: format = defaultFormatName } = options;
    const size = opened.size ?? 0;
    let hasFailed = false;
    const sendUnlessFailed = async (bytes: Uint8Array): Promise<void> => {
      // Nothing may follow that would make it look complete.
      if (hasFailed) throw new Error('given up');
      await send(bytes);
    };
    const creation = { ...options.options, format, size, signal };
    const target = await createSequential(name, sendUnlessFailed, creation);
    try {
      await copyInto(opened, target, { ...options, targetIsZero: true }, 'existing');
    } catch (error) {
      hasFailed = true;
      await target.close().catch(() => undefined);
      throw error;
    }
    await target.close();
  } finally {
    await opened.close();
  }
}
