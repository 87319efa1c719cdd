/** Images that are read once, from begin to end: from a stream, or out of a packed file. */
import { Readable } from 'node:stream';
import { CowherdError } from '../../errors.js';
import { recogniseFormat } from '../../format/registry.js';
import { probeBytes } from '../../format/probe.js';
import type { StreamedDisk, StreamedPiece } from '../../format/streamed.js';
import { unpackStream } from '../../storage/packed/unpacked.js';
import { openPackedStream } from '../../storage/registry.js';
import { ByteStream } from '../../storage/stream/byte-stream.js';
import { spool } from '../../storage/stream/spooled-file.js';
import { describeErrno } from '../../system-errors.js';
import type { Image } from '../api/image.js';
import type { OpenImageOptions } from '../api/options.js';
import { openImageOn } from './open.js';
import { defaultFormatName, loadDriver } from '../names/formats.js';

export type { ByteStream, StreamedDisk, StreamedPiece };

export { magicBytes, packingOf } from '../../storage/packed/packings.js';

/** What streams are, as far as files are told from it. */
const streamProtocol = 'file';

/** Is given the bytes of a source's file, one after the other. */
type OnBytes = ((bytes: Uint8Array) => void) | undefined;

/**
 * A stream as a source, and if its first bytes say that it is packed, what is packed in it.
 *
 * @param name what failures name
 */
export function sourceStream(
  source: AsyncIterable<Uint8Array>,
  name: string,
  signal: AbortSignal | undefined,
  onBytes?: OnBytes,
): Promise<ByteStream> {
  const bytes = readable(source, name, signal, onBytes);
  return unpackStream(new ByteStream(bytes, { filename: name, title: name }));
}

/** @throws CowherdError ERR_COWHERD_IO for what reading throws; the signal's reason */
async function* readable(
  source: AsyncIterable<Uint8Array>,
  name: string,
  signal: AbortSignal | undefined,
  onBytes: OnBytes,
): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of source) {
      signal?.throwIfAborted();
      if (!(piece instanceof Uint8Array)) throw new TypeError('its pieces are no bytes');
      onBytes?.(piece);
      // Whoever makes pieces may fill the same memory again, but for Node's streams, which do not.
      yield source instanceof Readable ? piece : new Uint8Array(piece);
    }
  } catch (error) {
    if (error instanceof CowherdError || signal?.aborted === true) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === undefined ? message : describeErrno(code);
    const text = `Could not read ${name}: ${reason}`;
    throw new CowherdError('ERR_COWHERD_IO', text, { filename: name, reason, cause: error });
  }
}

/** What is packed in the file of a name; undefined if it is not packed. */
export function packedStream(
  path: string,
  { cache, aio, forceShare, unpack, http, signal, filters }: OpenImageOptions,
  onBytes?: OnBytes,
): Promise<ByteStream | undefined> {
  const opening = {
    readOnly: true,
    sharesWriting: true,
    cache: cache ?? 'writeback',
    aio: aio ?? 'auto',
    forceShare: forceShare ?? false,
    unpack: unpack ?? true,
    http,
    signal,
    filters,
  } as const;
  return openPackedStream(path, opening, onBytes);
}

/**
 * The disk of a stream.
 *
 * @param format by its name; told by the first bytes if left out
 * @returns undefined, with nothing taken from the stream, if it has to be read as a file
 * @throws CowherdError naming the stream and what is wrong with it
 */
export async function streamedDisk(
  stream: ByteStream,
  format: string | undefined,
): Promise<StreamedDisk | undefined> {
  const name = format ?? recogniseFormat(await stream.peek(probeBytes))?.name ?? defaultFormatName;
  const driver = await loadDriver(name, stream.filename);
  return await driver.stream?.(stream);
}

/** Reads a stream to its end, and opens what it was as an image, which is only read. */
export async function openSpooled(stream: ByteStream, options: OpenImageOptions): Promise<Image> {
  const { cache, aio, signal } = options;
  const file = await spool(stream, {
    protocol: streamProtocol,
    ...(cache !== undefined && { cache }),
    ...(aio !== undefined && { aio }),
    signal,
  });
  try {
    return await openImageOn(file, { ...options, readOnly: true });
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
}
