/** How the chunks of UDIF images are packed, and what unpacks them. */
import { type CowherdError, problemWith } from '../../errors.js';
import { unpackBzip2 } from '../../storage/packed/bzip2.js';
import type { Unpack } from '../../storage/packed/unpack.js';
import { unpackXz } from '../../storage/packed/xz.js';
import { inflateInto } from '../mapped/inflate.js';
import { ChunkType } from './chunks.js';

/** Unpacks a chunk, which must fill `into`. @throws Error for data that do not */
export type UnpackChunk = (packed: Uint8Array, into: Uint8Array) => Promise<void>;

/** By type of the chunk; those for which there is nothing here are left out. */
export const unpackChunk: Readonly<Record<number, UnpackChunk>> = {
  [ChunkType.zlib]: (packed, into) => inflateInto(packed, into, 'zlib'),
  [ChunkType.bzip2]: throughStream(unpackBzip2),
  [ChunkType.lzfse]: async (packed, into) => {
    const { unpackLzfse } = await import('./lzfse.js');
    unpackLzfse(packed, into);
  },
  // Named LZMA by who made them, they are whole .xz files.
  [ChunkType.lzma]: throughStream(unpackXz),
};

function throughStream(unpack: Unpack): UnpackChunk {
  return async (packed, into) => {
    let filled = 0;
    for await (const piece of unpack(onePiece(packed))) {
      if (piece.length > into.length - filled)
        throw new Error('there is more than the chunk holds');
      into.set(piece, filled);
      filled += piece.length;
    }
    if (filled < into.length) throw new Error('there is less than the chunk holds');
  };
}

// eslint-disable-next-line @typescript-eslint/require-await -- what unpacks takes what comes over time
async function* onePiece(piece: Uint8Array): AsyncGenerator<Uint8Array> {
  yield piece;
}

/** A chunk that cannot be unpacked. @param offset host offset in bytes */
export function unreadableChunk(type: number, filename: string, offset: number): CowherdError {
  const isKnown = type === ChunkType.adc;
  const what = isKnown ? 'compressed with ADC' : `of unknown type 0x${type.toString(16)}`;
  return problemWith('ERR_COWHERD_UNSUPPORTED', filename, `chunks ${what} cannot be read`, {
    offset,
  });
}
