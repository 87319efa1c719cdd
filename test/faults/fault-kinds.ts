/** The ways in which an operation is made to fail, each tried at each site. */
import type { FaultOptions } from '../../src/storage/filters/fault.js';
import type { OperationKind } from '../../src/storage/filters/filter-file.js';

/** One way to fail. */
export interface FaultKind {
  readonly name: string;
  readonly options: Pick<FaultOptions, 'errno' | 'forever' | 'effect'>;
  /** Whether the device still fails while the image is closed. */
  readonly givenUp: boolean;
  /** Kinds of operations it makes sense for; all if left out. */
  readonly kinds?: readonly OperationKind[];
}

/** Every way. */
export const faultKinds: readonly FaultKind[] = [
  { name: 'EIO once', options: { errno: 'EIO' }, givenUp: false },
  { name: 'EIO for ever', options: { errno: 'EIO', forever: true }, givenUp: false },
  { name: 'EIO, given up', options: { errno: 'EIO', forever: true }, givenUp: true },
  { name: 'ENOSPC once', options: { errno: 'ENOSPC' }, givenUp: false },
  { name: 'ENOSPC for ever', options: { errno: 'ENOSPC', forever: true }, givenUp: false },
  {
    name: 'short',
    options: { errno: 'EIO', effect: 'short' },
    givenUp: false,
    kinds: ['read', 'write', 'writeZeroes', 'discard', 'allocate'],
  },
  { name: 'delay', options: { effect: 'delay' }, givenUp: false },
];
