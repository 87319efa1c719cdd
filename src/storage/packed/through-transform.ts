/** Passing bytes through one of Node's transforms. */
import { Readable, type Transform, pipeline } from 'node:stream';

/** What comes out of a transform; it fails as what goes in does. */
export function throughTransform(
  bytes: AsyncIterable<Uint8Array>,
  transform: Transform,
): AsyncIterable<Uint8Array> {
  // Who reads the transform meets the failure there.
  pipeline(Readable.from(bytes), transform, () => undefined);
  return transform as AsyncIterable<Uint8Array>;
}
