/** The bytes by which the format of a file is told. */

/** Bytes at a file's begin that decide on its format. */
export const probeBytes = 512;

/** What a file begins with: `probeBytes` of it, or all there are. */
export class Beginning {
  readonly #view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Whether the characters of a text, a byte each, stand at an offset. */
  has(text: string, at = 0): boolean {
    return Buffer.from(text, 'latin1').every((byte, index) => this.bytes[at + index] === byte);
  }

  /** The number at an offset, its lowest byte first; 0 beyond the end. */
  uint32LE(at: number): number {
    return at + 4 <= this.bytes.length ? this.#view.getUint32(at, true) : 0;
  }

  /** The number at an offset, its highest byte first; 0 beyond the end. */
  uint32BE(at: number): number {
    return at + 4 <= this.bytes.length ? this.#view.getUint32(at) : 0;
  }

  /** All of it as text, a character each byte. */
  text(): string {
    const { buffer, byteOffset, byteLength } = this.bytes;
    return Buffer.from(buffer, byteOffset, byteLength).toString('latin1');
  }
}
