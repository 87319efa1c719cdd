/** The options of a new image: their types for programs, and what each format says of its own. */

import type { PasswordChange } from './encryption/passwords.js';

/** Space reserved at creation, as QEMU's `preallocation`. */
export type Preallocation = 'off' | 'metadata' | 'falloc' | 'full';

/** How the disk of a new image is encrypted: QEMU's options in camel case. */
export interface EncryptOptions {
  /** Of qcow2: `luks`, or QEMU's old `aes`, which is not safe. */
  readonly format?: 'aes' | 'luks' | undefined;
  /** The password, in UTF-8. */
  readonly secret?: Uint8Array | string | undefined;
  /** What the password is called in messages. */
  readonly keySecret?: string | undefined;
  /** `aes-256` by default. */
  readonly cipherAlg?: string | undefined;
  readonly cipherMode?: string | undefined;
  readonly ivgenAlg?: string | undefined;
  readonly ivgenHashAlg?: string | undefined;
  /** Of what keys are made with: `sha256` by default. */
  readonly hashAlg?: string | undefined;
  /** Milliseconds that it is to take to make a key of the password; default 2000. */
  readonly iterTime?: number | undefined;
  /** Of the luks format: listed, and refused, as the real tool does. */
  readonly detachedHeader?: boolean | undefined;
}

/** Options of a new image, QEMU's names in camel case; which there are depends on the format. */
export interface CreateOptions {
  /** Bytes, a power of two; in qcow2 from 512 to 2 MiB, default 65536. */
  readonly clusterSize?: number | string;
  /** `0.10` (version 2) or `1.1` (version 3); `v2` and `v3` mean the same. Default `1.1`. */
  readonly compat?: '0.10' | '1.1' | 'v2' | 'v3';
  /** Width of a reference count in bits: 1, 2, 4, 8, 16, 32 or 64; default 16. */
  readonly refcountBits?: number;
  readonly lazyRefcounts?: boolean;
  readonly extendedL2?: boolean;
  readonly compressionType?: 'zlib' | 'zstd';
  /** Name stored in the image; relative names are relative to the image's folder. */
  readonly backingFile?: string;
  /** Format of the backing file. */
  readonly backingFormat?: string;
  /** Name of the external data file, which is created. */
  readonly dataFile?: string;
  readonly dataFileRaw?: boolean;
  readonly preallocation?: Preallocation;
  /** VMDK, VHD and VHDX: which of the format's kinds; see `-o help`. */
  readonly subformat?: string;
  /** VMDK: the adapter that the disk is for; default `ide`. */
  readonly adapterType?: string;
  /** VMDK: version of the virtual hardware; default `4`, or `6` with `compat6`. */
  readonly hardwareVersion?: string;
  readonly compat6?: boolean;
  /** VMDK: version of the guest's tools; default `2147483647`. */
  readonly toolsVersion?: string;
  /** VMDK: entries of tables may say that grains are zeroes. */
  readonly zeroedGrain?: boolean;
  /** VHD: keep the size instead of rounding it to a geometry; a fixed one is rounded to whole MiB. */
  readonly forceSize?: boolean;
  /** VDI: give every block its place at once. */
  readonly static?: boolean;
  /** VHDX: bytes of a block, a power of two from 1 MiB to 256 MiB; 0, the default, goes by the disk's size. */
  readonly blockSize?: number | string;
  /** VHDX: bytes of the log, rounded up to whole MiB; default 1 MiB. */
  readonly logSize?: number | string;
  /** VHDX: blocks of a dynamic disk begin as ones of zeroes, not as ones that are not there; default true. */
  readonly blockStateZero?: boolean;
  /** QED: clusters of a table, a power of two from 1 to 16; default 4. */
  readonly tableSize?: number | string;
  /** QCOW2: QEMU's old name of `encrypt: { format: 'aes' }`. */
  readonly encryption?: boolean;
  /** QCOW2 and LUKS: how the disk is encrypted. */
  readonly encrypt?: EncryptOptions;
  /** A file without copy on write, where the file system knows such (btrfs). */
  readonly nocow?: boolean;
  /** Bytes of the extents that the file system is asked for, where it has hints (XFS); default 1M. */
  readonly extentSizeHint?: number | string;
}

/** One option of a new image. */
export interface CreateOption {
  /** QEMU's name. */
  readonly name: string;
  /** The library's name: a member of `CreateOptions`, or of `encrypt` of a new image or of a change, or `size`. */
  readonly key:
    | Exclude<keyof CreateOptions, 'encrypt'>
    | `encrypt.${keyof EncryptOptions | keyof PasswordChange}`
    | 'size';
  readonly type: 'string' | 'size' | 'switch' | 'number';
  /** One line. */
  readonly help: string;
  /** What it is if it is not said, where that is shown. */
  readonly initial?: string;
  /** Of a string: what it may be. */
  readonly values?: readonly string[];
  /** What QEMU calls it where a value is refused, if it names it. */
  readonly label?: string;
  /** Whether it can be changed later. */
  readonly isAmendable?: boolean;
  /** Whether it is an option of the file rather than of the format. */
  readonly isOfFile?: boolean;
}

/** What is known of making images of a format before its driver is loaded. */
export interface FormatCreation {
  /** The options there are, in the order in which QEMU prints them. */
  readonly options: readonly CreateOption[];
  /** What can be changed later beside those of them that are amendable. */
  readonly amendOptions?: readonly CreateOption[];
  /** Names of options, and of groups of them, that QEMU has, and why they are refused. */
  readonly refused?: readonly { readonly name: string; readonly why: string }[];
  /** Whether its images can hold compressed data. */
  readonly compresses?: boolean;
}

/** The virtual size. */
export const sizeOption: CreateOption = {
  name: 'size',
  key: 'size',
  type: 'size',
  help: 'Virtual disk size',
};

/** The option to reserve space. */
export function preallocationOption(
  modes: readonly Preallocation[],
  more: Partial<CreateOption> = {},
): CreateOption {
  return {
    name: 'preallocation',
    key: 'preallocation',
    type: 'string',
    help: `Preallocation mode (allowed values: ${modes.join(', ')})`,
    values: ['off', 'metadata', 'falloc', 'full'],
    ...more,
  };
}

/** The options of a format whose images can stand on others. */
export const backingOptions: readonly CreateOption[] = [
  {
    name: 'backing_file',
    key: 'backingFile',
    type: 'string',
    help: 'File name of a base image',
  },
  {
    name: 'backing_fmt',
    key: 'backingFormat',
    type: 'string',
    help: 'Image format of the base image',
    label: 'backing-fmt',
  },
];

/** The options of the file that an image is made in, whichever format it has. */
export const fileOptions: readonly CreateOption[] = [
  {
    name: 'nocow',
    key: 'nocow',
    type: 'switch',
    help: 'Turn off copy-on-write (valid only on btrfs)',
    isOfFile: true,
  },
  {
    name: 'extent_size_hint',
    key: 'extentSizeHint',
    type: 'size',
    help: 'Extent size hint for the image file, 0 to disable',
    isOfFile: true,
  },
];
