/** Decompression of chunks. */
import { codecFor, inflateZlib } from '../../native/codecs.js';

/**
 * Inflates a chunk, which must fill `into`; what follows it in `input` is ignored.
 *
 * @param wrapping `zlib` (RFC 1950) or none (RFC 1951)
 * @throws CowherdError ERR_COWHERD_CORRUPT for data that do not inflate to that
 */
export async function inflateInto(
  input: Uint8Array,
  into: Uint8Array,
  wrapping: 'zlib' | 'raw',
): Promise<void> {
  if (wrapping === 'zlib') await inflateZlib(input, into);
  else await codecFor('zlib').decompress(input, into);
}
