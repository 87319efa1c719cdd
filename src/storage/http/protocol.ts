/** The protocols of web servers. */
import { cannotOpen } from '../../errors.js';
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
        throw cannotOpen('ERR_COWHERD_INVALID_ARGUMENT', url, 'it is no valid URL');
      }
      const { openHttpFile, printableUrl } = await import('./http-file.js');
      if (options.readOnly !== true) {
        const filename = printableUrl(url);
        throw cannotOpen(
          'ERR_COWHERD_READ_ONLY',
          filename,
          'files of web servers can only be read',
        );
      }
      return await openHttpFile(url, options.http ?? {}, undefined, options.signal);
    },
    attach: async (handle) => (await import('./http-file.js')).attachHttpFile(handle),
    identify: (url) => Promise.resolve(URL.canParse(url) ? new URL(url).href : url),
  };
}
