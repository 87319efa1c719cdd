/** What only one format has to tell of an image, by its `type`. */
import type { Qcow2Info } from './qcow2/report/info.js';
import type { VmdkFacts } from './vmdk/driver.js';

export type { VmdkFacts } from './vmdk/driver.js';
export type { BitmapInfo, Qcow2Info } from './qcow2/report/info.js';
export type { EncryptionInfo, EncryptionSlotInfo } from './qcow2/contents/encryption.js';

/** Facts of one format that others have not. */
export type FormatSpecificInfo = Qcow2Info | VmdkFacts;
