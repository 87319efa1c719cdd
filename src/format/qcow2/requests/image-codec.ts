/** The codec of an image's compressed clusters: another one once the image, which has none then, is amended. */
import type { Codec } from '../../../native/codec.js';
import { codecFor } from '../../../native/codecs.js';
import type { CompressionType } from '../layout/header.js';

/** One user's codec, made when it is first needed. */
export class ImageCodec {
  readonly #source: { readonly compressionType: CompressionType };
  #type: CompressionType | undefined;
  #codec: Codec | undefined;

  /** @param source says how clusters are compressed now */
  constructor(source: { readonly compressionType: CompressionType }) {
    this.#source = source;
  }

  get current(): Codec {
    const { compressionType } = this.#source;
    if (this.#codec === undefined || this.#type !== compressionType) {
      this.#codec = codecFor(compressionType);
      this.#type = compressionType;
    }
    return this.#codec;
  }
}
