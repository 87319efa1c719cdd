/**
 * Names by which images of Windows refer to their parents (VHD and VHDX), as names by which they are found
 * here. A relative path is the same one with other separators. Drives and shares are not known here, so
 * that of other paths the last part is left: the file beside the image.
 */

/** The name for a relative path. */
export function nameOfRelativePath(path: string): string {
  const name = path.replaceAll('\\', '/');
  // What looks like a protocol, or an absolute name, is none.
  return /^[^/]*:|^\//.test(name) ? `./${name}` : name;
}

/** The name for a path from a drive, a volume or a share. */
export function nameOfAbsolutePath(path: string): string {
  return nameOfRelativePath(path.slice(path.lastIndexOf('\\') + 1));
}

/** Text in UTF-16, little-endian, up to the first NUL. */
export function decodeUtf16(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('utf16le');
  const end = text.indexOf('\0');
  return end === -1 ? text : text.slice(0, end);
}
