/** What only one format has to tell of an image, by its `type`. */
import type { LuksInfo } from './luks/image.js';
import type { Qcow2Info } from './qcow2/report/info.js';
import type { VmdkFacts } from './vmdk/driver.js';

export type { LuksInfo } from './luks/image.js';
export type { VmdkFacts } from './vmdk/driver.js';
export type { BitmapInfo, Qcow2Info } from './qcow2/report/info.js';
export type { EncryptionSlotInfo } from './encryption/facts.js';
export type { EncryptionInfo } from './qcow2/contents/encryption.js';

/** Facts of one format that others have not. */
export type FormatSpecificInfo = LuksInfo | Qcow2Info | VmdkFacts;
