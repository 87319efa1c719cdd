/** The protocols of web servers. */
import { CowherdError } from '../../errors.js';
import { httpOpenOptions } from '../http-options.js';
import type { Protocol } from '../protocol.js';

/** Files whose names begin with `http://`. */
export const httpProtocol = protocolNamed('http');
/** Files whose names begin with `https://`. */
export const httpsProtocol = protocolNamed('https');

function protocolNamed(name: string): Protocol {
  return {
    name,
    openOptions: httpOpenOptions,
    async open(url, options) {
      if (!URL.canParse(url)) {
        const message = `Could not open '${url}': it is no valid URL`;
        throw new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', message, { filename: url });
      }
      const { openHttpFile, printableUrl } = await import('./http-file.js');
      if (options.readOnly !== true) {
        const filename = printableUrl(url);
        const message = `Could not open '${filename}': files of web servers can only be read`;
        throw new CowherdError('ERR_COWHERD_READ_ONLY', message, { filename });
      }
      return await openHttpFile(url, options.http ?? {}, undefined, options.signal);
    },
    attach: async (handle) => (await import('./http-file.js')).attachHttpFile(handle),
    identify: (url) => Promise.resolve(URL.canParse(url) ? new URL(url).href : url),
  };
}
