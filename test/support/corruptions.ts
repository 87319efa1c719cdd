/** All hand-made corruptions that checking and repairing is held to. */
import { corruptCounts, corruptRefcountStructures } from './corrupt-refcounts.js';
import {
  corruptEntries,
  corruptFlags,
  corruptHeaders,
  corruptSubclusters,
  corruptTables,
} from './corrupt-tables.js';
import type { Corruption } from './damaged-image.js';

export { DamagedImage, type Corruption, type CorruptionBase, type Run } from './damaged-image.js';

/** Every corruption. */
export const corruptions: readonly Corruption[] = [
  ...corruptCounts,
  ...corruptRefcountStructures,
  ...corruptFlags,
  ...corruptEntries,
  ...corruptSubclusters,
  ...corruptTables,
  ...corruptHeaders,
];
