/** The options that qcow2 images are opened with. */
import type { OpenOption } from '../../storage/open-option.js';

const overlapLevels = ['none', 'constant', 'cached', 'all'] as const;

function tuning(name: string): OpenOption {
  return { name, type: 'size', help: 'taken, and changes nothing here' };
}

function cacheSize(name: string, key: string, what: string): OpenOption {
  return { name, type: 'size', key, help: `bytes of ${what}` };
}

function passing(name: string, keeps?: readonly boolean[]): OpenOption {
  const help = 'taken, as far as it is what is done';
  return { name, type: 'switch', ...(keeps && { keeps }), help };
}

/** See the file's comment. */
export const openOptions: readonly OpenOption[] = [
  {
    name: 'encrypt.format',
    type: 'text',
    key: 'encrypt.format',
    help: 'what the image is to be encrypted by: luks or aes',
  },
  {
    name: 'encrypt.key-secret',
    type: 'text',
    key: 'encrypt.keySecret',
    help: 'id of the secret that is the password of its disk',
  },
  {
    name: 'lazy-refcounts',
    type: 'switch',
    key: 'lazyRefcounts',
    help: 'whether reference counts reach the disk late',
  },
  cacheSize('cache-size', 'cacheSize', 'the metadata cache'),
  cacheSize('l2-cache-size', 'caches.l2', 'the cache of L2 tables'),
  cacheSize('refcount-cache-size', 'caches.refcounts', 'the cache of reference counts'),
  cacheSize(
    'l2-cache-entry-size',
    'caches.l2Entry',
    'an L2 table that are read at once; looked at',
  ),
  tuning('cache-clean-interval'),
  passing('pass-discard-request', [true]),
  passing('pass-discard-snapshot', [true]),
  passing('pass-discard-other'),
  passing('discard-no-unref', [false]),
  {
    name: 'overlap-check',
    other: {
      name: 'overlap-check.template',
      conflict: (value, other) =>
        `Conflicting values for qcow2 options 'overlap-check' ('${value}') and 'overlap-check.template' ('${other}')`,
    },
    type: overlapLevels,
    key: 'overlapCheck',
    refusal: (text) =>
      `Unsupported value '${text}' for qcow2 option 'overlap-check'. Allowed are any of the following: ${overlapLevels.join(', ')}`,
    help: 'which metadata writes are kept off',
  },
];
