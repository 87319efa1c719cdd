/** A raw disk that is read once. */
import type { ByteStream } from '../../storage/stream/byte-stream.js';
import type { StreamedDisk } from '../streamed.js';

const pieceBytes = 1024 * 1024;

/** The disk that a stream's bytes are. */
export function streamRaw(stream: ByteStream): Promise<StreamedDisk> {
  return Promise.resolve({ size: undefined, pieces: piecesOf(stream) });
}

async function* piecesOf(stream: ByteStream): StreamedDisk['pieces'] & AsyncGenerator {
  for (let offset = 0; ;) {
    const bytes = await stream.take(pieceBytes);
    if (bytes.length === 0) return;
    yield { offset, bytes };
    offset += bytes.length;
  }
}
