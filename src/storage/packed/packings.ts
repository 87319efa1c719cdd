/** Ways in which whole files are packed, as images are published: the one list of them. */
import type { Unpack } from './unpack.js';

/** A way of packing. */
export interface Packing {
  readonly name: string;
  /** What names of files end with. */
  readonly suffix: string;
  /** What files begin with. */
  readonly magic: readonly number[];
  readonly load: () => Promise<Unpack>;
}

const packings: readonly Packing[] = [
  {
    name: 'gzip',
    suffix: '.gz',
    // RFC 1952, 2.3.1: deflate is the only method there is.
    magic: [0x1f, 0x8b, 8],
    load: async () => (await import('./gzip.js')).unpackGzip,
  },
  {
    name: 'xz',
    suffix: '.xz',
    // The .xz File Format, 2.1.1.1.
    magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0],
    load: async () => (await import('./xz.js')).unpackXz,
  },
  {
    name: 'zstd',
    suffix: '.zst',
    // RFC 8878, 3.1.1.
    magic: [0x28, 0xb5, 0x2f, 0xfd],
    load: async () => (await import('./zstd.js')).unpackZstd,
  },
  {
    name: 'bzip2',
    suffix: '.bz2',
    magic: [0x42, 0x5a, 0x68],
    load: async () => (await import('./bzip2.js')).unpackBzip2,
  },
];

/** Bytes that tell how a file is packed. */
export const magicBytes = 6;

/** Whether the name of a file says that it is packed. */
export function hasPackedName(name: string): boolean {
  const path = name.toLowerCase().replace(/[?#].*$/, '');
  return packings.some(({ suffix }) => path.endsWith(suffix));
}

/** How a file is packed that begins with these bytes; undefined if it is not. */
export function packingOf(begin: Uint8Array): Packing | undefined {
  return packings.find(({ magic }) => magic.every((byte, index) => begin[index] === byte));
}
