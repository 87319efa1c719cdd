/** Encrypted disks, which are recognised so as not to be taken for plain ones, and not read. */
import type { Format } from '../format.js';

/** The format. */
export const luksFormat = {
  name: 'luks',
  title: 'LUKS',
  recognises: (begin) => begin.has('LUKS\xba\xbe\0\x01'),
} as const satisfies Format;
