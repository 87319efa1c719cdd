/** What a codec is: the contract of the native and the portable ones. */

/** A compression of whole clusters. Calls may run side by side without limit. */
export interface Codec {
  /**
   * Compresses `input` into `output`. Neither may be touched meanwhile.
   * @returns bytes written, or -1 where `output` is too short for the result
   */
  compress(input: Uint8Array, output: Uint8Array): Promise<number>;
  /**
   * Decompresses one cluster, which must fill `output`; what follows it in `input` is ignored.
   * @throws CowherdError ERR_COWHERD_CORRUPT where it does not
   */
  decompress(input: Uint8Array, output: Uint8Array): Promise<void>;
}

/** Compression types of qcow2. */
export type CodecName = 'zlib' | 'zstd';
