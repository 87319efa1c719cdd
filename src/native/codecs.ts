/**
 * Compression of single clusters: on the addon's own threads, or with what Node carries where the
 * addon does not load.
 */
import { CowherdError } from '../errors.js';
import { addon } from './addon.js';
import type { Codec, CodecName } from './codec.js';
import { damagedData } from './damaged-data.js';
import { Operation, type Ring, type RingClient } from './ring.js';
import { acquireRing } from './thread-rings.js';

const noSpace = -28;
const invalid = -22;

const zlibLevel = 6;
const zstdLevel = 3;

/**
 * The codec of a compression type, at a level.
 * @param level 1 to 9 for zlib (6 by default), 1 to 19 for zstd (3 by default)
 */
export function codecFor(name: CodecName, level?: number): Codec {
  if (name === 'zlib') {
    const wanted = level ?? zlibLevel;
    if (addon?.hasZlib !== true) return new PortableCodec(name, wanted);
    return new NativeCodec(Operation.deflate, Operation.inflate, wanted);
  }
  const wanted = level ?? zstdLevel;
  if (addon === undefined) return new PortableCodec(name, wanted);
  return new NativeCodec(Operation.zstdCompress, Operation.zstdDecompress, wanted);
}

/**
 * Inflates a zlib stream (RFC 1950), which must fill `output`; what follows it is ignored.
 *
 * @throws CowherdError ERR_COWHERD_CORRUPT where it does not
 */
export async function inflateZlib(input: Uint8Array, output: Uint8Array): Promise<void> {
  if (addon?.hasZlib !== true) {
    const { inflateZlib: inflate } = await import('./portable-codec.js');
    await inflate(input, output);
    return;
  }
  const result = await convert(Operation.inflateZlib, input, output, 0);
  if (result === invalid) throw damagedData();
  if (result < 0) {
    throw new CowherdError('ERR_COWHERD_IO', `decompression failed (errno ${-result})`);
  }
}

class ResultPromise implements RingClient<(result: number) => void> {
  requestEnded(resolve: (result: number) => void, result: number): void {
    resolve(result);
  }
}

const resultPromise = new ResultPromise();

/** The codecs' ring of this thread. It lasts as long as the thread, and keeps no loop alive. */
let codecRing: Ring | undefined;

/** The ring on which this thread has codecs and ciphers run. @throws CowherdError ERR_COWHERD_IO */
export function ringForCodecs(): Ring {
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
    if (result === invalid) throw damagedData();
    throw new CowherdError('ERR_COWHERD_IO', `decompression failed (errno ${-result})`);
  }

  #run(operation: Operation, input: Uint8Array, output: Uint8Array): Promise<number> {
    return convert(operation, input, output, this.#level);
  }
}

function convert(
  operation: Operation,
  input: Uint8Array,
  output: Uint8Array,
  level: number,
): Promise<number> {
  return new Promise((resolve) => {
    ringForCodecs().convert(resultPromise, resolve, operation, input, output, level);
  });
}

/** What Node carries, loaded where there is something to do for it. */
class PortableCodec implements Codec {
  readonly #name: CodecName;
  readonly #level: number;
  #loading: Promise<Codec> | undefined;

  constructor(name: CodecName, level: number) {
    this.#name = name;
    this.#level = level;
  }

  async compress(input: Uint8Array, output: Uint8Array): Promise<number> {
    const codec = await this.#load();
    return await codec.compress(input, output);
  }

  async decompress(input: Uint8Array, output: Uint8Array): Promise<void> {
    const codec = await this.#load();
    await codec.decompress(input, output);
  }

  #load(): Promise<Codec> {
    return (this.#loading ??= import('./portable-codec.js').then(({ portableCodec }) =>
      portableCodec(this.#name, this.#level),
    ));
  }
}
