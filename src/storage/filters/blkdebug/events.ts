/** The events and kinds of requests that rules of `blkdebug` are about, by QEMU's names (`BlkdebugEvent`). */

/** See the file's comment. Some are of what this program does not do; rules about those are never met. */
export const events = [
  ...['l1_update', 'l1_grow_alloc_table', 'l1_grow_write_table', 'l1_grow_activate_table'],
  ...['l2_load', 'l2_update', 'l2_update_compressed', 'l2_alloc_cow_read', 'l2_alloc_write'],
  ...['read_aio', 'read_backing_aio', 'read_compressed', 'write_aio', 'write_compressed'],
  ...['vmstate_load', 'vmstate_save', 'cow_read', 'cow_write'],
  ...['reftable_load', 'reftable_grow', 'reftable_update'],
  ...['refblock_load', 'refblock_update', 'refblock_update_part', 'refblock_alloc'],
  ...['refblock_alloc_hookup', 'refblock_alloc_write', 'refblock_alloc_write_blocks'],
  ...['refblock_alloc_write_table', 'refblock_alloc_switch_table'],
  ...['cluster_alloc', 'cluster_alloc_bytes', 'cluster_alloc_space', 'cluster_free'],
  ...['flush_to_os', 'flush_to_disk'],
  ...['pwritev_rmw_head', 'pwritev_rmw_after_head', 'pwritev_rmw_tail', 'pwritev_rmw_after_tail'],
  ...['pwritev', 'pwritev_zero', 'pwritev_done'],
  ...['empty_image_prepare', 'l1_shrink_write_table', 'l1_shrink_free_l2_clusters', 'cor_write'],
  'none',
] as const satisfies readonly string[];

/** The event that has happened when the file is opened. */
export const eventOfOpening = 'none';

/** Kinds of requests, by QEMU's names (`BlkdebugIOType`). */
export const ioTypes = [
  'read',
  'write',
  'write-zeroes',
  'discard',
  'flush',
  'block-status',
] as const;

/** See `ioTypes`. */
export type IoType = (typeof ioTypes)[number];

/** The kinds that fail where a rule says none. */
export const usualIoTypes: readonly IoType[] = [
  'read',
  'write',
  'write-zeroes',
  'discard',
  'flush',
];
