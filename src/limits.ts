/**
 * Every bound on what an image may ask for, each with its source. An image beyond a bound is
 * refused with a clear error before any memory is taken for it.
 */

const kib = 1024;
const mib = 1024 * kib;

/** Largest offset or size that is handled: JavaScript's largest exact integer. */
export const maxOffset = Number.MAX_SAFE_INTEGER;

/** Longest file in bytes that QEMU reads from; a check gives up where a table is said to lie beyond. */
export const maxFileLength = 0x7fffffffc0000000;

/** Cluster sizes as powers of two: 512 B to 2 MiB (specification, "cluster_bits"; QEMU's bound). */
export const minClusterBits = 9;
export const maxClusterBits = 21;

/** Largest active L1 table in bytes; QEMU refuses larger ones. */
export const maxL1TableBytes = 32 * mib;

/** Largest refcount table in bytes; QEMU refuses larger ones. */
export const maxRefcountTableBytes = 8 * mib;

/** Longest name of a backing file in bytes (specification, "backing_file_size"). */
export const maxBackingNameBytes = 1023;

/** Most images in one backing chain. */
export const maxChainDepth = 200;

/** Most internal snapshots; QEMU refuses more. */
export const maxSnapshots = 65536;

/** Largest snapshot table in bytes; QEMU refuses larger ones. */
export const maxSnapshotTableBytes = 1024 * maxSnapshots;

/** Most extra bytes one snapshot entry may carry; QEMU refuses more. */
export const maxSnapshotExtraBytes = 1024;

/** Most bytes of snapshots' L1 tables in an image that is written to: 32 of the largest. */
export const maxInactiveL1Bytes = 1024 * mib;

/** Most clusters of metadata that writes are kept off; they cost up to 32 bytes each. */
export const maxProtectedClusters = 16 * mib;

/** Most persistent bitmaps, and bytes of their directory; QEMU refuses more. */
export const maxBitmaps = 65535;
export const maxBitmapDirectoryBytes = 64 * mib;

/** Longest table of one persistent bitmap in entries; QEMU refuses longer ones. */
export const maxBitmapTableEntries = 0x8000000 / 8;

/** Smallest subclusters of extended L2 entries allow clusters from 16 KiB (32 × 512 B). */
export const minExtendedClusterBits = 14;

/** Metadata cache in bytes when the caller names none; enough for 256 GiB of 64 KiB clusters. */
export const defaultCacheBytes = 32 * mib;

/** Smallest metadata cache in bytes that is granted, so that every request can make progress. */
export const minCacheBytes = 512 * kib;
