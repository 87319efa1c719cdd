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

/** Most bytes of the bits of one persistent bitmap, and of the map that records for all; QEMU refuses more. */
export const maxBitmapBytes = 512 * mib;

/** Finest and coarsest granularity of a persistent bitmap that QEMU knows, in bits: 512 bytes, 2 GiB. */
export const minBitmapGranularityBits = 9;
export const maxBitmapGranularityBits = 31;

/** Longest name of a persistent bitmap in bytes; QEMU refuses longer ones. */
export const maxBitmapNameBytes = 1023;

/** Smallest subclusters of extended L2 entries allow clusters from 16 KiB (32 × 512 B). */
export const minExtendedClusterBits = 14;

/** Metadata cache in bytes when the caller names none; enough for 256 GiB of 64 KiB clusters. */
export const defaultCacheBytes = 32 * mib;

/** Smallest metadata cache in bytes that is granted, so that every request can make progress. */
export const minCacheBytes = 512 * kib;

/** Findings of a check that are kept for its report; beyond them only counts go on. */
export const maxKeptFindings = 10_000;

/**
 * Most clusters of a file of which a check keeps which are in use, a bit each: 1 GiB of bits, 512 TiB of
 * clusters of 64 KiB.
 */
export const maxCheckedClusters = 2 ** 33;

/** Largest compressed part, inflated, of a format that has such; QEMU's bound for cloop and dmg. */
export const maxChunkBytes = 64 * mib;

/** Most table entries that one lookup of a format that is only read joins, so that it stays short. */
export const maxJoinedEntries = 1024;

/** Most blocks of a VDI image, QEMU's bound: its block map takes less than 2 GiB. */
export const maxVdiBlocks = 0x1fffff80;

/** Largest disk of a VHD image in sectors of 512 bytes, 2040 GiB; QEMU refuses larger ones. */
export const maxVhdSectors = 0xff000000;

/** Most entries of a VHD image's block allocation table; QEMU refuses more. */
export const maxVhdTableEntries = 0x1fffffff;

/** Largest disk of a VHDX image in bytes, 64 TiB ([MS-VHDX] 2.6.2.2). */
export const maxVhdxDiskBytes = 64 * 1024 * 1024 * mib;

/** Largest log of a VHDX image in bytes that is replayed in memory; Hyper-V and QEMU make 1 MiB. */
export const maxVhdxLogBytes = 16 * mib;

/** Longest parent locator of a VHDX image in bytes ([MS-VHDX] 2.6.1.2, "Length"). */
export const maxParentLocatorBytes = mib;

/** Longest path in a parent locator of a VHD image in bytes: Windows' longest, in UTF-16. */
export const maxParentPathBytes = 2 * 32767;

/** Most sectors of a Parallels cluster; QEMU refuses more. */
export const maxParallelsClusterSectors = 4186127;

/** Most entries of a Parallels catalog; QEMU refuses more. */
export const maxParallelsCatalogEntries = 0x1fffffff;

/** Longest name of a QED image's backing file in bytes, which QEMU holds in PATH_MAX. */
export const maxQedBackingNameBytes = 4095;

/** Most bytes of a VMDK descriptor; QEMU reads no more. */
export const maxVmdkDescriptorBytes = mib - 1;

/** Most extents of a VMDK image, each a file that is held open: 8 TiB in parts of 2 GiB. */
export const maxVmdkExtents = 4096;

/** Longest name of a VMDK image's parent in bytes: Linux's longest path; QEMU refuses longer ones. */
export const maxVmdkParentNameBytes = 4095;

/** Largest grain of a VMDK image in bytes; QEMU refuses larger ones. */
export const maxVmdkGrainBytes = 1024 * mib;

/** Most entries of a VMDK extent's grain directory; QEMU refuses more. */
export const maxVmdkDirectoryEntries = 32 * mib;

/** Most entries of a grain table of a hosted VMDK extent; QEMU refuses more. */
export const maxVmdkTableEntries = 512;

/** Largest description of a UDIF image's chunks in bytes; QEMU refuses larger property lists. */
export const maxUdifTableBytes = 16 * mib;

/** Most entries of a cloop image's table of offsets; QEMU refuses tables beyond 512 MiB. */
export const maxCloopOffsets = 64 * mib;

/** Most entries of the catalog of a Bochs image; QEMU refuses more. */
export const maxBochsCatalogEntries = mib;

/** Largest extent of a Bochs image in bytes; QEMU refuses larger ones. */
export const maxBochsExtentBytes = 8 * mib;
