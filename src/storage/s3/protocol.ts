/** Objects of S3 services, `s3://BUCKET/KEY`: files of web servers whose requests are signed. */
import { cannotOpen } from '../../errors.js';
import type { HttpFile } from '../http/http-file.js';
import { type HttpOptions, httpOpenOptions } from '../http-options.js';
import type { Protocol } from '../protocol.js';
import type { StorageHandle } from '../storage.js';

/** The protocol. */
export const s3Protocol: Protocol = {
  name: 's3',
  openOptions: httpOpenOptions,
  async open(name, { readOnly, http = {}, signal }) {
    if (readOnly !== true) {
      throw cannotOpen('ERR_COWHERD_READ_ONLY', name, 'objects of S3 services can only be read');
    }
    return await openObject(name, http, undefined, signal);
  },
  attach: (handle) => openObject(handle.filename, {}, handle),
  identify: (name) => Promise.resolve(name),
};

/** @param handle of another thread that has it open */
async function openObject(
  name: string,
  options: HttpOptions,
  handle?: StorageHandle,
  signal?: AbortSignal,
): Promise<HttpFile> {
  const { attachHttpFile, openHttpFile } = await import('../http/http-file.js');
  const { findAccess } = await import('./credentials.js');
  const { objectUrl, signer } = await import('./request.js');
  const access = await findAccess();
  const url = objectUrl(name, access);
  const own = { protocol: 's3', filename: name, sign: signer(access) };
  return handle === undefined
    ? await openHttpFile(url, options, own, signal)
    : await attachHttpFile(handle, own);
}
