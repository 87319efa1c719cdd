/** Where this package lies, whether its modules are joined into bundles or not. */
import { existsSync } from 'node:fs';

/** The nearest folder above this module that has a package.json, as a URL with a slash at its end. */
export const packageFolder: URL = findPackageFolder();

function findPackageFolder(): URL {
  let folder = new URL('./', import.meta.url);
  while (!existsSync(new URL('package.json', folder))) {
    const above = new URL('../', folder);
    if (above.href === folder.href) return folder;
    folder = above;
  }
  return folder;
}
