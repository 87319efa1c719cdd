/** The format that this package is for. */
import { openOptions } from './open-options.js';
import { backingOptions, fileOptions, preallocationOption, sizeOption } from '../create-options.js';
import { luksOptions, passwordOptions } from '../encryption/create-options.js';
import type { Format } from '../format.js';
import { isQcow2, qcow2Magic } from './layout/header.js';

/** The format. */
export const qcow2Format = {
  name: 'qcow2',
  title: 'qcow2',
  recognises: (begin) => isQcow2(begin.bytes),
  resembles: (begin) => qcow2Magic.every((byte, index) => begin.bytes[index] === byte),
  openOptions,
  openChildren: ['data-file', 'backing'],
  creation: {
    compresses: true,
    options: [
      {
        name: 'encryption',
        key: 'encryption',
        type: 'switch',
        help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
      },
      {
        name: 'encrypt.format',
        key: 'encrypt.format',
        type: 'string',
        help: "Encrypt the image, format choices: 'aes', 'luks'",
        values: ['aes', 'luks'],
        label: 'format',
      },
      {
        name: 'encrypt.key-secret',
        key: 'encrypt.keySecret',
        type: 'string',
        help: 'ID of secret providing qcow AES key or LUKS passphrase',
      },
      ...luksOptions('encrypt.'),
      {
        name: 'cluster_size',
        key: 'clusterSize',
        type: 'size',
        help: 'qcow2 cluster size',
        initial: '65536',
      },
      {
        name: 'extended_l2',
        key: 'extendedL2',
        type: 'switch',
        help: 'Extended L2 tables',
        initial: 'off',
      },
      preallocationOption(['off', 'metadata', 'falloc', 'full'], { label: 'preallocation' }),
      {
        name: 'compression_type',
        key: 'compressionType',
        type: 'string',
        help: 'Compression method used for image cluster compression',
        initial: 'zlib',
        values: ['zlib', 'zstd'],
        label: 'compression-type',
      },
      { ...sizeOption, isAmendable: true },
      {
        name: 'compat',
        isAmendable: true,
        key: 'compat',
        type: 'string',
        help: 'Compatibility level (v2 [0.10] or v3 [1.1])',
        values: ['1.1', '0.10', 'v2', 'v3'],
        label: 'version',
      },
      ...backingOptions.map((option) => ({ ...option, isAmendable: true })),
      {
        name: 'data_file',
        isAmendable: true,
        key: 'dataFile',
        type: 'string',
        help: 'File name of an external data file',
      },
      {
        name: 'data_file_raw',
        isAmendable: true,
        key: 'dataFileRaw',
        type: 'switch',
        help: 'The external data file must stay valid as a raw image',
      },
      {
        name: 'lazy_refcounts',
        isAmendable: true,
        key: 'lazyRefcounts',
        type: 'switch',
        help: 'Postpone refcount updates',
        initial: 'off',
      },
      {
        name: 'refcount_bits',
        isAmendable: true,
        key: 'refcountBits',
        type: 'number',
        help: 'Width of a reference count entry in bits',
        initial: '16',
      },
      ...fileOptions,
    ],
    amendOptions: passwordOptions('encrypt.'),
  },
  load: async () => (await import('./driver.js')).qcow2Driver,
} as const satisfies Format;
