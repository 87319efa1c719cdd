/** What each kind of finding of a check means for the user's data, in one sentence. */

/** The sentences, by what was found. */
export const explanations = {
  leak: 'Space in the file is counted as used but nothing refers to it; no data is harmed, and -r leaks frees it.',
  countTooLow:
    'The cluster is used more often than it is counted, so a write or a freed copy could overwrite data that is still needed; do not write to the image before -r all.',
  uncounted:
    'The cluster is in use but counted as free, so the next write could be placed on top of its data; do not write to the image before -r all.',
  unreadableCount:
    'The table that counts this cluster cannot be read, so whether its data is safe from being overwritten is unknown.',
  countLimit:
    'More references to the cluster exist than its count can express, so freeing some of them would free data others still need; copy the disk with convert.',
  beyondEnd:
    'Something refers to a place the file does not have: the data that should be there is lost and reads as zeroes.',
  l1Reserved:
    'A pointer to a mapping table has bits set that mean nothing; the disk range it maps may have been damaged and cannot be trusted.',
  l2Reserved:
    'A mapping entry has bits set that mean nothing; the cluster it maps may have been damaged and cannot be trusted.',
  tableUnaligned:
    'A pointer to a mapping table is damaged: the data of the whole range that the table maps cannot be reached.',
  dataUnaligned:
    'A mapping entry is damaged: the data of this one cluster cannot be reached, and nothing says where it lies.',
  zeroUnaligned:
    'A mapping entry of a cluster that reads as zeroes names an impossible place to keep it; no data is lost, and -r all drops the place.',
  compressedCopied:
    'A compressed cluster is flagged as writable in place; its data is readable, but a program that believes the flag would damage its neighbours.',
  compressedExternal:
    'A compressed cluster stands in an image whose data lies in another file, which cannot be: its data cannot be read.',
  compressedBitmap:
    'A compressed cluster also claims to have parts of its own; which of its content is meant is unknown.',
  subclusterBitmap:
    'Parts of a cluster claim to hold data and to be zeroes at once; which of the two they were meant to be is unknown.',
  subclusterUnallocated:
    'A cluster claims to hold data but names no place for it: that data is lost.',
  copiedFlag:
    'A flag says wrongly whether the cluster may be changed in place; data reads well now, but writing could change a snapshot or waste space until -r all.',
  snapshotsExternal:
    'The image has snapshots although its data lies in another file, which snapshots do not keep; what they show is not what was saved.',
  snapshotUnaligned:
    'The entry of a snapshot is damaged: what the snapshot keeps cannot be reached; the current state of the disk is not concerned.',
  snapshotTooLarge:
    'The entry of a snapshot claims an impossibly large table: what the snapshot keeps cannot be reached; the current state is not concerned.',
  snapshotIncomplete:
    'The entry of a snapshot leaves out facts that this version of the format requires; its data is not concerned, and -r all completes it.',
  snapshotExtra:
    'The entry of a snapshot carries more extra data than any program uses; -r all cuts it, and the snapshot itself stays.',
  snapshotsDiscarded:
    'The snapshot table is larger than it may be: the snapshots beyond the limit are given up, and their space is freed.',
  snapshotTable:
    'The snapshot table cannot be read, so which space the snapshots use is unknown; the current state of the disk is not concerned.',
  bitmaps:
    'A persistent bitmap is damaged: the record of changed blocks is lost and the next incremental backup has to be a full one; the disk is not concerned.',
  blockReserved:
    'A pointer to reference counts has bits set that mean nothing; -r all counts anew from the data itself.',
  blockUnaligned:
    'A pointer to reference counts is damaged, so it is unknown which space is free; data reads well, and -r all counts anew.',
  blockOutside:
    'A block of reference counts lies outside the file, so it is unknown which space is free; data reads well, and -r all counts anew.',
  blockShared:
    'A block of reference counts lies where something else lies too, so either may have overwritten the other; -r all counts anew elsewhere.',
  rebuild: 'All reference counts are written anew, from what the image refers to.',
  rebuildNeeded:
    'The reference counts cannot be put right one by one; -r all counts anew from the data itself.',
  tableKept:
    'The mapping table lies where something else lies too, so it was left as it is rather than risk data.',
} as const;

/** What a finding is about. */
export type FindingTopic = keyof typeof explanations;
