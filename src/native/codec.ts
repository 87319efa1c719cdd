/**
 * Compression of single clusters: on the addon's own threads, or with what Node carries where the
 * addon does not load.
 */
import zlib from 'node:zlib';
import { promisify } from 'node:util';
import { decompress as fzstdDecompress } from 'fzstd';
import { CowherdError } from '../errors.js';
import { addon } from './addon.js';
import { Operation, type Ring, type RingClient } from './ring.js';
import { acquireRing } from './thread-rings.js';

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

const noSpace = -28;
const invalid = -22;

/** Window of what we write, as QEMU writes it (its reader takes no larger one). */
const writeWindowBits = 12;
const zlibOptions: zlib.ZlibOptions = { windowBits: writeWindowBits, memLevel: 9 };
const zlibLevel = 6;
const zstdLevel = 3;

/**
 * The codec of a compression type, at a level.
 * @param level 1 to 9 for zlib (6 by default), 1 to 19 for zstd (3 by default)
 */
export function codecFor(name: CodecName, level?: number): Codec {
  if (name === 'zlib') {
    const wanted = level ?? zlibLevel;
    if (addon?.hasZlib !== true) return new NodeZlibCodec(wanted);
    return new NativeCodec(Operation.deflate, Operation.inflate, wanted);
  }
  const wanted = level ?? zstdLevel;
  if (addon === undefined) return new NodeZstdCodec(wanted);
  return new NativeCodec(Operation.zstdCompress, Operation.zstdDecompress, wanted);
}

function corrupt(cause?: unknown): CowherdError {
  return new CowherdError('ERR_COWHERD_CORRUPT', 'compressed data is damaged', { cause });
}

class ResultPromise implements RingClient<(result: number) => void> {
  requestEnded(resolve: (result: number) => void, result: number): void {
    resolve(result);
  }
}

const resultPromise = new ResultPromise();

/** The codecs' ring of this thread. It lasts as long as the thread, and keeps no loop alive. */
let codecRing: Ring | undefined;

function ringForCodecs(): Ring {
  if (codecRing === undefined) {
    const ring = acquireRing('threads');
    if (typeof ring === 'number') {
      throw new CowherdError('ERR_COWHERD_IO', `no ring for codecs (errno ${-ring})`);
    }
    codecRing = ring;
  }
  return codecRing;
}

class NativeCodec implements Codec {
  readonly #compression: Operation;
  readonly #decompression: Operation;
  readonly #level: number;

  constructor(compression: Operation, decompression: Operation, level: number) {
    this.#compression = compression;
    this.#decompression = decompression;
    this.#level = level;
  }

  async compress(input: Uint8Array, output: Uint8Array): Promise<number> {
    const result = await this.#run(this.#compression, input, output);
    if (result >= 0) return result;
    if (result === noSpace) return -1;
    throw new CowherdError('ERR_COWHERD_IO', `compression failed (errno ${-result})`);
  }

  async decompress(input: Uint8Array, output: Uint8Array): Promise<void> {
    const result = await this.#run(this.#decompression, input, output);
    if (result >= 0) return;
    if (result === invalid) throw corrupt();
    throw new CowherdError('ERR_COWHERD_IO', `decompression failed (errno ${-result})`);
  }

  #run(operation: Operation, input: Uint8Array, output: Uint8Array): Promise<number> {
    return new Promise((resolve) => {
      ringForCodecs().convert(resultPromise, resolve, operation, input, output, this.#level);
    });
  }
}

type Convert = (
  input: Uint8Array,
  options: zlib.ZlibOptions,
) => Promise<Uint8Array>;
const deflateRaw = promisify(zlib.deflateRaw) as Convert;
const inflateRaw = promisify(zlib.inflateRaw) as Convert;

class NodeZlibCodec implements Codec {
  readonly #level: number;

  constructor(level: number) {
    this.#level = level;
  }

  async compress(input: Uint8Array, output: Uint8Array): Promise<number> {
    const result = await deflateRaw(input, { ...zlibOptions, level: this.#level });
    if (result.byteLength > output.byteLength) return -1;
    output.set(result);
    return result.byteLength;
  }

  async decompress(input: Uint8Array, output: Uint8Array): Promise<void> {
    let result: Uint8Array;
    try {
      // Output beyond one cluster is damage, and must not take memory first.
      result = await inflateRaw(input, {
        maxOutputLength: output.byteLength,
        finishFlush: zlib.constants.Z_SYNC_FLUSH,
      });
    } catch (error) {
      throw corrupt(error);
    }
    if (result.byteLength !== output.byteLength) throw corrupt();
    output.set(result);
  }
}

/** The zstd half of `node:zlib`, which Node has had since 22.15. */
interface NodeZstd {
  zstdCompress(
    input: Uint8Array,
    options: { params: Record<number, number> },
    callback: (error: Error | null, result: Uint8Array) => void,
  ): void;
}

/** ZSTD_c_compressionLevel */
const levelParameter = 100;

class NodeZstdCodec implements Codec {
  readonly #level: number;

  constructor(level: number) {
    this.#level = level;
  }

  compress(input: Uint8Array, output: Uint8Array): Promise<number> {
    const node = zlib as unknown as Partial<NodeZstd>;
    const compress = node.zstdCompress;
    if (compress === undefined) {
      return Promise.reject(
        new CowherdError(
          'ERR_COWHERD_UNSUPPORTED',
          'zstd compression needs the native addon, or Node 22.15 or newer',
        ),
      );
    }
    return new Promise((resolve, reject) => {
      compress(input, { params: { [levelParameter]: this.#level } }, (error, result) => {
        if (error !== null) {
          reject(error);
        } else if (result.byteLength > output.byteLength) {
          resolve(-1);
        } else {
          output.set(result);
          resolve(result.byteLength);
        }
      });
    });
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- failures are rejections
  async decompress(input: Uint8Array, output: Uint8Array): Promise<void> {
    let result: Uint8Array;
    try {
      result = fzstdDecompress(input.subarray(0, zstdFrameLength(input)), output);
    } catch (error) {
      throw corrupt(error);
    }
    if (result.byteLength !== output.byteLength) throw corrupt();
    if (result.buffer !== output.buffer) output.set(result);
  }
}

/**
 * Length in bytes of the frame at the start of the input: padding may follow it (RFC 8878,
 * sections 3.1.1.1 and 3.1.1.2).
 */
function zstdFrameLength(input: Uint8Array): number {
  const byte = (at: number): number => {
    if (at >= input.byteLength) throw corrupt();
    return input[at];
  };
  const magic = [0x28, 0xb5, 0x2f, 0xfd];
  if (magic.some((value, at) => byte(at) !== value)) throw corrupt();
  const descriptor = byte(4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const contentSizeFlag = descriptor >> 6;
  const contentSizeBytes = contentSizeFlag === 0 ? (singleSegment ? 1 : 0) : 1 << contentSizeFlag;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3];
  let at = 5 + (singleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes;
  for (;;) {
    const header = byte(at) | (byte(at + 1) << 8) | (byte(at + 2) << 16);
    const repeated = ((header >> 1) & 3) === 1;
    at += 3 + (repeated ? 1 : header >> 3);
    if ((header & 1) !== 0) break;
  }
  return at + ((descriptor & 4) !== 0 ? 4 : 0);
}
