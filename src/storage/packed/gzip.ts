/** Unpacking gzip, any number of members one after the other. */
import { createGunzip } from 'node:zlib';
import type { Unpack } from './unpack.js';
import { throughTransform } from './through-transform.js';

/** Bytes of what is unpacked at once. */
const chunkSize = 256 * 1024;

/** See the file's comment. */
export const unpackGzip: Unpack = (packed) => throughTransform(packed, createGunzip({ chunkSize }));
