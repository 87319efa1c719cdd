/** The options of encryption, of new images and of changes, each with QEMU's name behind a prefix. */
import type { CreateOption } from '../create-options.js';

const ciphers = [
  ...['aes-128', 'aes-192', 'aes-256', 'des', '3des', 'cast5-128'],
  ...['serpent-128', 'serpent-192', 'serpent-256'],
  ...['twofish-128', 'twofish-192', 'twofish-256', 'sm4'],
];
const hashes = ['md5', 'sha1', 'sha224', 'sha256', 'sha384', 'sha512', 'ripemd160', 'sm3'];

/** What a header of LUKS is made by. */
export function luksOptions(prefix: string): readonly CreateOption[] {
  const chosen = (
    name: 'cipher-alg' | 'cipher-mode' | 'ivgen-alg' | 'ivgen-hash-alg' | 'hash-alg',
    key: CreateOption['key'],
    help: string,
    values: readonly string[],
  ): CreateOption => ({ name: `${prefix}${name}`, key, type: 'string', help, values, label: name });
  return [
    chosen('cipher-alg', 'encrypt.cipherAlg', 'Name of encryption cipher algorithm', ciphers),
    chosen('cipher-mode', 'encrypt.cipherMode', 'Name of encryption cipher mode', [
      'ecb',
      'cbc',
      'xts',
      'ctr',
    ]),
    chosen('ivgen-alg', 'encrypt.ivgenAlg', 'Name of IV generator algorithm', [
      'plain',
      'plain64',
      'essiv',
    ]),
    chosen('ivgen-hash-alg', 'encrypt.ivgenHashAlg', 'Name of IV generator hash algorithm', hashes),
    chosen('hash-alg', 'encrypt.hashAlg', 'Name of encryption hash algorithm', hashes),
    iterTimeOption(prefix),
  ];
}

/** By what the passwords of a disk behind a header of LUKS change. */
export function passwordOptions(prefix: string): readonly CreateOption[] {
  return [
    {
      name: `${prefix}state`,
      key: 'encrypt.state',
      type: 'string',
      help: 'Select new state of affected keyslots (active/inactive)',
      values: ['active', 'inactive'],
      label: 'state',
    },
    {
      name: `${prefix}keyslot`,
      key: 'encrypt.keyslot',
      type: 'number',
      help: 'Select a single keyslot to modify explicitly',
    },
    {
      name: `${prefix}old-secret`,
      key: 'encrypt.oldKeySecret',
      type: 'string',
      help: 'Select all keyslots that match this password',
    },
    {
      name: `${prefix}new-secret`,
      key: 'encrypt.newKeySecret',
      type: 'string',
      help: 'New secret to set in the matching keyslots. Empty string to erase',
    },
    iterTimeOption(prefix),
  ];
}

function iterTimeOption(prefix: string): CreateOption {
  return {
    name: `${prefix}iter-time`,
    key: 'encrypt.iterTime',
    type: 'number',
    help: 'Time to spend in PBKDF in milliseconds',
  };
}
