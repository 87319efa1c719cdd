/** What a cipher of disks is: the contract of the native and the portable one. */

/** Bytes that are enciphered as one. */
export const cipherSectorBytes = 512;

/** What a cipher of sectors is made of, besides its key. */
export interface SectorCipherSpec {
  /** A block cipher of 16 bytes with the length of its key, as OpenSSL names it: `aes-256`. */
  readonly algorithm: string;
  readonly mode: CipherMode;
  readonly ivgen: IvGenerator;
  /** Of `essiv`. */
  readonly ivgenHash?: string | undefined;
  /** Of `essiv`: its cipher. */
  readonly ivgenAlgorithm?: string | undefined;
}

/** How blocks of a sector hang together. */
export type CipherMode = 'ecb' | 'cbc' | 'xts' | 'ctr';
/** What a sector's vector is: its number in 32 bits or 64, or that enciphered. */
export type IvGenerator = 'plain' | 'plain64' | 'essiv';

/** The parts of a cipher, as both ways of carrying it out take them. */
export interface SectorCipherParts {
  /** OpenSSL's name of what blocks are enciphered with: that of ECB for XTS. */
  readonly name: string;
  readonly key: Uint8Array;
  readonly isXts: boolean;
  /** Bits of the sector's number that the vector is made of; 0 where there is none. */
  readonly numberBits: 0 | 32 | 64;
  /** Ciphers of ECB that then encipher the vector, one after the other. */
  readonly makers: readonly { readonly name: string; readonly key: Uint8Array }[];
}

/** A cipher and its key, for one thread. Calls may run side by side without limit. */
export interface SectorCipher {
  /**
   * Enciphers whole sectors, of which `sector` is the number of the first; the output may be the input.
   *
   * @returns undefined where that is done already
   */
  encrypt(input: Uint8Array, output: Uint8Array, sector: number): Promise<void> | undefined;
  /** Deciphers whole sectors in place. @returns undefined where that is done already */
  decrypt(bytes: Uint8Array, sector: number): Promise<void> | undefined;
}
