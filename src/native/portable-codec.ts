/** The codecs where the addon does not load: what Node carries, and a decompressor of zstd in JavaScript. */
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { decompress as fzstdDecompress } from 'fzstd';
import { CowherdError } from '../errors.js';
import type { Codec, CodecName } from './codec.js';
import { damagedData } from './damaged-data.js';

/** Window of what we write, as QEMU writes it (its reader takes no larger one). */
const writeWindowBits = 12;
const zlibOptions: zlib.ZlibOptions = { windowBits: writeWindowBits, memLevel: 9 };

/** The codec of a compression type. @param level as of `codecFor` */
export function portableCodec(name: CodecName, level: number): Codec {
  return name === 'zlib' ? new NodeZlibCodec(level) : new NodeZstdCodec(level);
}

type Convert = (
  input: Uint8Array,
  options: zlib.ZlibOptions,
) => Promise<Uint8Array>;
const deflateRaw = promisify(zlib.deflateRaw) as Convert;
const inflateRaw = promisify(zlib.inflateRaw) as Convert;
const inflate = promisify(zlib.inflate) as Convert;
/** Output that zlib makes room for at once. */
const mostRoom = 1024 * 1024;

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
      throw damagedData(error);
    }
    if (result.byteLength !== output.byteLength) throw damagedData();
    output.set(result);
  }
}

/** As `inflateZlib` of the codecs. */
export async function inflateZlib(input: Uint8Array, output: Uint8Array): Promise<void> {
  let result: Uint8Array;
  try {
    result = await inflate(input, {
      // With a little more room than the output takes, zlib sees its end at once.
      chunkSize: Math.min(output.byteLength + 64, mostRoom),
      maxOutputLength: output.byteLength,
    });
  } catch (error) {
    throw damagedData(error);
  }
  if (result.byteLength !== output.byteLength) throw damagedData();
  output.set(result);
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
      throw damagedData(error);
    }
    if (result.byteLength !== output.byteLength) throw damagedData();
    if (result.buffer !== output.buffer) output.set(result);
  }
}

/**
 * Length in bytes of the frame at the start of the input: padding may follow it (RFC 8878,
 * sections 3.1.1.1 and 3.1.1.2).
 */
function zstdFrameLength(input: Uint8Array): number {
  const byte = (at: number): number => {
    if (at >= input.byteLength) throw damagedData();
    return input[at];
  };
  const magic = [0x28, 0xb5, 0x2f, 0xfd];
  if (magic.some((value, at) => byte(at) !== value)) throw damagedData();
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
