/** The public library of cowherd: everything a program may import. */
export { CowherdError, type CowherdErrorCode } from './errors.js';
export type { FormatDriver } from './format/driver.js';
export type { Format } from './format/format.js';
export type * from './image/api.js';
export { attachImage } from './image/attach.js';
export { createImage } from './image/create.js';
export { registerFormat } from './image/formats.js';
export { openImage, openImageOn } from './image/open.js';
export { type ImagePool, type PoolOptions, openPool } from './image/pool.js';
export { bench, type BenchOptions, type BenchResult } from './jobs/bench.js';
export { checksum, type ChecksumOptions, type ChecksumResult } from './jobs/checksum.js';
export { compare, type CompareOptions, type CompareResult } from './jobs/compare.js';
export { convert } from './jobs/convert.js';
export type { ConvertOptions } from './jobs/convert-options.js';
export { alignedBuffer } from './native/aligned-buffer.js';
export type { Protocol } from './storage/protocol.js';
export { registerProtocol } from './storage/registry.js';
export type { StorageFile } from './storage/storage.js';
