/** How disks that keep nothing are made up. */
import type { OpenOption } from './open-option.js';

/** See the file's comment. */
export interface NullOptions {
  /** Bytes of the disk; default 1 GiB. */
  readonly size?: number | undefined;
  /** Nanoseconds after which a request ends, about; default 0. */
  readonly latencyNs?: number | undefined;
  /** Whether the disk is known to read as zeroes; default false, and then it reads as zeroes all the same. */
  readonly readZeroes?: boolean | undefined;
}

/** The same by QEMU's names. */
export const nullOpenOptions: readonly OpenOption[] = [
  { name: 'size', type: 'size', key: 'null.size', help: 'bytes of the disk; default 1G' },
  {
    name: 'latency-ns',
    type: 'size',
    key: 'null.latencyNs',
    help: 'nanoseconds after which a request ends',
  },
  {
    name: 'read-zeroes',
    type: 'switch',
    key: 'null.readZeroes',
    help: 'says that the disk reads as zeroes',
  },
];
