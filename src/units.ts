/**
 * Branded number types, so that bytes, clusters and table indices cannot be mixed by accident.
 * All are JavaScript numbers; values beyond 2^53 - 1 are refused where they enter.
 */

declare const unit: unique symbol;
type Branded<Name extends string> = number & { readonly [unit]: Name };

/** Offset in bytes in the virtual disk that a guest sees. */
export type GuestOffset = Branded<'GuestOffset'>;
/** Offset in bytes in the file that holds clusters. */
export type HostOffset = Branded<'HostOffset'>;
/** Index of a cluster of the virtual disk: guest offset / cluster size. */
export type GuestCluster = Branded<'GuestCluster'>;
/** Index of a cluster of the file: host offset / cluster size. */
export type HostCluster = Branded<'HostCluster'>;
