/** Encrypted disks behind a header of LUKS 1. */
import { fileOptions, preallocationOption, sizeOption } from '../create-options.js';
import { luksOptions, passwordOptions } from '../encryption/create-options.js';
import type { Format } from '../format.js';

/** The format. */
export const luksFormat = {
  name: 'luks',
  title: 'LUKS',
  recognises: (begin) => begin.has('LUKS\xba\xbe\0\x01'),
  openOptions: [
    {
      name: 'key-secret',
      type: 'text',
      key: 'encrypt.keySecret',
      help: 'id of the secret that is the password of the disk',
    },
  ],
  creation: {
    options: [
      sizeOption,
      {
        name: 'key-secret',
        key: 'encrypt.keySecret',
        type: 'string',
        help: 'ID of the secret that provides the keyslot passphrase',
      },
      ...luksOptions(''),
      {
        name: 'detached-header',
        key: 'encrypt.detachedHeader',
        type: 'switch',
        help: 'Create a detached LUKS header',
      },
      preallocationOption(['off', 'falloc', 'full'], { isOfFile: true }),
      ...fileOptions,
    ],
    amendOptions: passwordOptions(''),
  },
  load: async () => (await import('./driver.js')).luksDriver,
} as const satisfies Format;
