/** The public library of cowherd: everything a program may import. */
export { CowherdError, type CowherdErrorCode } from './errors.js';
export type { ServerTls } from './export/nbd/tls.js';
export { type ServedImage, type ServeOptions, type Server, serve } from './export/serve.js';
export type { FormatDriver } from './format/driver.js';
export type { Format } from './format/format.js';
export type * from './image/api/image.js';
export type * from './image/api/long-operation.js';
export type * from './image/api/options.js';
export type * from './image/api/reports.js';
export type * from './image/api/stats.js';
export { attachImage } from './image/threads/attach.js';
export { createImage } from './image/graph/create.js';
export { registerFormat } from './image/names/formats.js';
export { openImage, openImageOn } from './image/graph/open.js';
export { type ImagePool, type PoolOptions, openPool } from './image/threads/pool.js';
export { bench, type BenchOptions, type BenchResult } from './jobs/bench.js';
export { check, type CheckImageOptions } from './jobs/check.js';
export { checksum, type ChecksumOptions, type ChecksumResult } from './jobs/checksum.js';
export { commit, type CommitOptions } from './jobs/commit.js';
export { compare, type CompareOptions, type CompareResult } from './jobs/compare.js';
export { convert } from './jobs/convert.js';
export type { ConversionSource } from './jobs/conversion-source.js';
export type { ConvertOptions } from './jobs/convert-options.js';
export { dd, type DdOptions, type DdResult } from './jobs/dd.js';
export { info } from './jobs/info.js';
export {
  measure,
  type MeasuredSource,
  type MeasureOptions,
  type Measurement,
} from './jobs/measure.js';
export { rebase, type RebaseOptions } from './jobs/rebase.js';
export { alignedBuffer } from './native/aligned-buffer.js';
export { BaseFile } from './storage/base-file.js';
export type { Protocol } from './storage/protocol.js';
export { registerProtocol } from './storage/registry.js';
export type * from './storage/storage.js';
