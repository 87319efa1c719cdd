/** Packed files as streams of what is packed in them. */
import { CowherdError } from '../../errors.js';
import { ByteStream } from '../stream/byte-stream.js';
import type { StorageFile } from '../storage.js';
import { type Packing, magicBytes, packingOf } from './packings.js';

const pieceBytes = 1024 * 1024;

/** How a file is packed; undefined if it is not. */
export async function packingOfFile(file: StorageFile): Promise<Packing | undefined> {
  const begin = new Uint8Array(magicBytes);
  await file.read(begin, 0);
  return packingOf(begin);
}

/**
 * What is packed in a file, which the stream owns.
 *
 * @param onBytes is given the bytes of the file itself, one after the other
 */
export async function unpackFile(
  file: StorageFile,
  packing: Packing,
  onBytes?: (bytes: Uint8Array) => void,
): Promise<ByteStream> {
  const { filename } = file;
  const totalBytes = await file.size();
  let doneBytes = 0;
  const bytes = readAhead(file, totalBytes, (piece) => {
    doneBytes += piece.length;
    onBytes?.(piece);
  });
  const title = `'${filename}'`;
  const why = `Could not open ${title}: it could not be unpacked`;
  return new ByteStream(unpacking(filename, why, bytes, packing), {
    filename,
    title,
    progress: () => ({ doneBytes, totalBytes }),
    close: () => file.close(),
  });
}

/** The same stream, or if its first bytes say that it is packed, what is packed in it. */
export async function unpackStream(stream: ByteStream): Promise<ByteStream> {
  const packing = packingOf(await stream.peek(magicBytes));
  if (packing === undefined) return stream;
  const { filename, title } = stream;
  const why = `${title} could not be unpacked`;
  return new ByteStream(unpacking(filename, why, stream, packing), {
    filename,
    title,
    progress: () => stream.progress,
    close: () => stream.close(),
  });
}

/** @throws CowherdError ERR_COWHERD_CORRUPT naming the file, if it is damaged */
async function* unpacking(
  filename: string,
  why: string,
  packed: AsyncIterable<Uint8Array>,
  { name, load }: Packing,
): AsyncGenerator<Uint8Array> {
  const unpack = await load();
  try {
    yield* unpack(packed);
  } catch (error) {
    if (error instanceof CowherdError) throw error;
    const { message } = error as Error;
    throw new CowherdError('ERR_COWHERD_CORRUPT', `${why} (${name}): ${message}`, {
      filename,
      reason: message,
      cause: error,
    });
  }
}

/** The bytes of a file, of which the next piece is read while one is worked on. */
async function* readAhead(
  file: StorageFile,
  size: number,
  onRead: (piece: Uint8Array) => void,
): AsyncGenerator<Uint8Array> {
  const read = (at: number): { readonly piece: Uint8Array; readonly done: Promise<void> } => {
    const piece = new Uint8Array(Math.max(0, Math.min(pieceBytes, size - at)));
    const done = piece.length > 0 ? file.read(piece, at) : Promise.resolve();
    // A failure is met when its turn comes.
    done.catch(() => undefined);
    return { piece, done };
  };
  let next = read(0);
  for (let at = 0; at < size;) {
    const { piece, done } = next;
    await done;
    at += piece.length;
    next = read(at);
    onRead(piece);
    yield piece;
  }
  await next.done;
}
