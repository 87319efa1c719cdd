/** The passwords of an open image, which are changed where its header of LUKS lies. */
import type { DiskKey } from './disk-key.js';
import { type LuksArea, addKey, eraseKeys, readLuksHeader } from './key-slots.js';
import { type Refuse, passwordOf, refusingChange, refusingImage } from './secret.js';

/** How the passwords of an encrypted disk change: QEMU's options in camel case. */
export interface PasswordChange {
  /** `active`: `newSecret` comes to open the disk; `inactive`: passwords are given up. */
  readonly state?: 'active' | 'inactive' | undefined;
  /** The password that is added, in UTF-8. */
  readonly newSecret?: Uint8Array | string | undefined;
  /** What it is called in messages. */
  readonly newKeySecret?: string | undefined;
  /** The password that is given up, in UTF-8, wherever it is. */
  readonly oldSecret?: Uint8Array | string | undefined;
  /** What it is called in messages. */
  readonly oldKeySecret?: string | undefined;
  /** The slot that is filled, or given up: 0 to 7. Left out, the first that is free, or those of `oldSecret`. */
  readonly keyslot?: number | undefined;
  /** Milliseconds that it is to take to make a key of the new password; default 2000. */
  readonly iterTime?: number | undefined;
  /** Whether an active slot may be written over, and the last password given up, with which the disk is lost. */
  readonly force?: boolean | undefined;
}

/** See the file's comment. Changes come one after the other: who asks for them sees to that. */
export class Passwords {
  readonly #area: LuksArea;
  readonly #filename: string;
  readonly #diskKey: DiskKey;

  /** @param diskKey of the open disk, which new passwords come to open */
  constructor(area: LuksArea, filename: string, diskKey: DiskKey) {
    this.#area = area;
    this.#filename = filename;
    this.#diskKey = diskKey;
  }

  /** Whether a change says what it has to. @throws ERR_COWHERD_INVALID_ARGUMENT for one that does not */
  check(change: PasswordChange): void {
    checkPasswordChange(change, this.#refuse);
  }

  /**
   * Adds a password, or gives some up. Whatever is cut off leaves those that there were, with or without each that
   * was to change.
   *
   * @throws ERR_COWHERD_INVALID_ARGUMENT for what cannot be
   */
  async change(change: PasswordChange): Promise<void> {
    const refuse = this.#refuse;
    checkPasswordChange(change, refuse);
    const { keyslot: slot, iterTime: iterTimeMs, force } = change;
    const header = await readLuksHeader(this.#area, refusingImage(this.#filename));
    if (change.state === 'active') {
      const newPassword = passwordNamed(change.newKeySecret, change.newSecret, refuse)!;
      const masterKey = this.#diskKey.key.slice();
      try {
        const added = { masterKey, newPassword, slot, iterTimeMs, force };
        await addKey(header, this.#area, added, refuse);
      } finally {
        newPassword.fill(0);
        masterKey.fill(0);
      }
      return;
    }
    const oldPassword = passwordNamed(change.oldKeySecret, change.oldSecret, refuse);
    try {
      await eraseKeys(header, this.#area, { slot, oldPassword, force }, refuse);
    } finally {
      oldPassword?.fill(0);
    }
  }

  get #refuse(): Refuse {
    return refusingChange(this.#filename);
  }
}

/** @throws what `refuse` makes of a change that lacks something, or has too much */
function checkPasswordChange(change: PasswordChange, refuse: Refuse): void {
  const { state, iterTime } = change;
  const newPassword = change.newSecret ?? change.newKeySecret;
  const oldPassword = change.oldSecret ?? change.oldKeySecret;
  if (state === undefined) throw refuse("Parameter 'state' is missing");
  if (state === 'active') {
    if (newPassword === undefined) throw refuse("'new-secret' is required to activate a keyslot");
    if (oldPassword !== undefined) {
      throw refuse("'old-secret' must not be given when activating keyslots");
    }
    return;
  }
  if (newPassword !== undefined) {
    throw refuse("'new-secret' must not be given when erasing keyslots");
  }
  if (iterTime !== undefined) throw refuse("'iter-time' must not be given when erasing keyslots");
}

function passwordNamed(
  keySecret: string | undefined,
  secret: Uint8Array | string | undefined,
  refuse: Refuse,
): Uint8Array | undefined {
  if (keySecret === undefined && secret === undefined) return undefined;
  return passwordOf({ keySecret, secret }, '', refuse);
}
