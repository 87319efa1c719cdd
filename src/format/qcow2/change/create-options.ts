/** The options of a new qcow2 image: checked against the format and each other, with QEMU's words. */
import { CowherdError } from '../../../errors.js';
import type { Qcow2CreateOptions } from './create.js';
import { maxClusterBits, minClusterBits, minExtendedClusterBits } from '../../../limits.js';
import { sizeInBytes } from '../../../size.js';
import type { CreateOptions, EncryptOptions, Preallocation } from '../../create-options.js';
import { decideLuksHeader } from '../../encryption/new-header.js';
import { passwordOf } from '../../encryption/secret.js';
import { encryptPrefix } from '../contents/encryption.js';

const defaultClusterBits = 16;
const defaultRefcountBits = 16;
/** What is wrong with a width that there is not. */
export const wrongRefcountBits = 'Refcount width must be a power of two and may not exceed 64 bits';
const preallocations: readonly Preallocation[] = ['off', 'metadata', 'falloc', 'full'];

/**
 * Decides every option of a new image.
 *
 * @param bytes virtual size
 * @throws ERR_COWHERD_INVALID_ARGUMENT naming the option that is wrong
 */
export function decideCreateOptions(options: CreateOptions, bytes: number): Qcow2CreateOptions {
  const version = decideVersion(options.compat ?? '1.1');
  const clusterBits = decideClusterBits(options.clusterSize);
  const extendedL2 = options.extendedL2 ?? false;
  const preallocation = decidePreallocation(options);
  const compressionType = options.compressionType ?? 'zlib';
  if (version < 3) refuseForVersion2(options);
  if (extendedL2 && clusterBits < minExtendedClusterBits) {
    throw invalid(
      `Extended L2 entries are only supported with cluster sizes of at least ${2 ** minExtendedClusterBits} bytes`,
    );
  }
  if ((compressionType as string) !== 'zlib' && (compressionType as string) !== 'zstd') {
    throw invalid(`Invalid parameter '${compressionType as string}' for compression_type`);
  }
  if (options.backingFile !== undefined && preallocation !== 'off' && !extendedL2) {
    throw invalid(
      'Backing file and preallocation can only be used at the same time if extended_l2 is on',
    );
  }
  if (options.dataFileRaw === true && options.dataFile === undefined) {
    throw invalid('data-file-raw requires data-file');
  }
  if (options.dataFileRaw === true && options.backingFile !== undefined) {
    throw invalid('Backing file and data-file-raw cannot be used at the same time');
  }
  const encrypt = decideEncryption(options);
  if (encrypt !== undefined && options.dataFileRaw === true) {
    throw unsupported('An encrypted data file cannot be read as a raw image (data_file_raw)');
  }
  if (encrypt !== undefined && version < 3 && preallocation !== 'off') {
    throw unsupported(
      'Encrypted images can be preallocated with compatibility level 1.1 and above only',
    );
  }
  return {
    encrypt,
    size: bytes,
    version,
    clusterBits,
    refcountOrder: decideRefcountOrder(options.refcountBits),
    lazyRefcounts: options.lazyRefcounts ?? false,
    extendedL2,
    compressionType,
    backingFile: options.backingFile,
    backingFormat: options.backingFormat,
    dataFileName: options.dataFile,
    dataFileRaw: options.dataFileRaw ?? false,
    // A raw data file is to be readable by itself, so no cluster may read differently through qcow2.
    preallocation:
      options.dataFileRaw === true && preallocation === 'off' ? 'metadata' : preallocation,
  };
}

/** How the disk is encrypted, the password looked at too. */
function decideEncryption({
  encryption = false,
  encrypt,
}: CreateOptions): EncryptOptions | undefined {
  if (encryption && encrypt?.format !== undefined) {
    throw invalid("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  }
  const format = encryption ? 'aes' : encrypt?.format;
  const given = Object.entries(encrypt ?? {}).filter(([, value]) => value !== undefined);
  if (format === undefined) {
    if (given.length === 0) return undefined;
    throw invalid("Parameter 'encrypt.format' is missing");
  }
  if (format !== 'aes' && (format as string) !== 'luks') {
    throw invalid(`Parameter 'format' does not accept value '${format as string}'`);
  }
  const own: readonly string[] = ['format', 'keySecret', 'secret'];
  const unknown = given.find(([name]) => format === 'aes' && !own.includes(name))?.[0];
  if (unknown !== undefined) {
    const name = unknown.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw invalid(`Parameter 'encrypt.${name}' is unexpected`);
  }
  const decided = { ...encrypt, format };
  if (format === 'luks') decideLuksHeader(decided);
  passwordOf(decided, encryptPrefix, invalid);
  return decided;
}

/** The version that a level of compatibility names; undefined if it is none. */
export function versionOfLevel(compat: string): 2 | 3 | undefined {
  if (compat === '0.10' || compat === 'v2') return 2;
  if (compat === '1.1' || compat === 'v3') return 3;
  return undefined;
}

function decideVersion(compat: string): 2 | 3 {
  const version = versionOfLevel(compat);
  if (version !== undefined) return version;
  throw invalid(`Invalid parameter '${compat}' for compat`);
}

function decideClusterBits(clusterSize: number | string | undefined): number {
  if (clusterSize === undefined) return defaultClusterBits;
  const bits = Math.log2(sizeInBytes(clusterSize, 'cluster size'));
  if (!Number.isInteger(bits) || bits < minClusterBits || bits > maxClusterBits) {
    throw invalid(
      `Cluster size must be a power of two between ${2 ** minClusterBits} and ${2 ** maxClusterBits / 1024}k`,
    );
  }
  return bits;
}

function decideRefcountOrder(refcountBits = defaultRefcountBits): number {
  const order = refcountOrderOfBits(refcountBits);
  if (order !== undefined) return order;
  throw invalid(wrongRefcountBits);
}

/** log2 of a width of reference counts; undefined for one that there is not. */
export function refcountOrderOfBits(bits: number): number | undefined {
  const order = Math.log2(bits);
  return Number.isInteger(order) && order >= 0 && order <= 6 ? order : undefined;
}

function decidePreallocation(options: CreateOptions): Preallocation {
  const preallocation = options.preallocation ?? 'off';
  if (!preallocations.includes(preallocation)) {
    throw invalid(`Invalid parameter '${preallocation as string}' for preallocation`);
  }
  return preallocation;
}

function refuseForVersion2(options: CreateOptions): void {
  const needs = (feature: string, above = 'and above'): CowherdError =>
    invalid(`${feature} compatibility level 1.1 ${above} (use version=v3 or greater)`);
  if (options.lazyRefcounts === true) throw needs('Lazy refcounts only supported with');
  if (options.extendedL2 === true) throw needs('Extended L2 entries are only supported with');
  if ((options.refcountBits ?? defaultRefcountBits) !== defaultRefcountBits) {
    throw needs('Different refcount widths than 16 bits require', 'or above');
  }
  if (options.dataFile !== undefined) {
    throw needs('External data files are only supported with');
  }
  if (options.compressionType !== undefined && options.compressionType !== 'zlib') {
    throw needs('Non-zlib compression type is only supported with');
  }
}

function unsupported(message: string): CowherdError {
  return new CowherdError('ERR_COWHERD_UNSUPPORTED', message);
}

function invalid(message: string): CowherdError {
  return new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message);
}
