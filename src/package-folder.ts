/** Where the files of this package lie, whether its modules are joined into bundles or not. */
import { existsSync, readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/** The version of these modules, put in when they are joined into bundles (scripts/bundle.mjs). */
declare const COWHERD_VERSION: string;

/** What `require` there is for a file. Asked for so that bundlers leave it alone. */
export const { createRequire } = process.getBuiltinModule('node:module');

/**
 * The folder of this package, as a URL with a slash at its end: the one that this module lies in, or
 * the same version of it that is installed where a program lies that has this module in a bundle of
 * its own; undefined if there is neither.
 */
export const packageFolder: URL | undefined = findPackageFolder();

function findPackageFolder(): URL | undefined {
  const module = thisModule();
  let folder = new URL('./', module);
  for (;;) {
    if (isThisPackage(new URL('package.json', folder))) return folder;
    const above = new URL('../', folder);
    if (above.href === folder.href) break;
    folder = above;
  }
  // A bundler may have put the place where this module was for the one where it is.
  for (const program of [module, process.argv[1]]) {
    try {
      const file = pathToFileURL(createRequire(program).resolve('cowherd/package.json'));
      if (isThisPackage(file)) return new URL('./', file);
    } catch {
      // Not installed there.
    }
  }
  return undefined;
}

/** CommonJS, in which `import.meta` is empty, has a name of the file instead. */
function thisModule(): string {
  const url = import.meta.url as string | undefined;
  return url ?? pathToFileURL(__filename).href;
}

function isThisPackage(file: URL): boolean {
  try {
    const text = readFileSync(file, 'utf8');
    const { name, version } = JSON.parse(text) as Readonly<Record<string, unknown>>;
    if (name !== 'cowherd') return false;
    return typeof COWHERD_VERSION === 'undefined' || version === COWHERD_VERSION;
  } catch {
    return false;
  }
}

/**
 * The module that a worker thread is to run, by its name.
 *
 * @param asker `import.meta.url` of the module beside which it lies; in CommonJS there is none
 * @returns undefined if it is not here: then `noWorkerModule` says why
 */
export function workerModule(name: string, asker: string | undefined): URL | undefined {
  const places = [
    asker === undefined ? undefined : new URL(name, asker),
    packageFolder && new URL(`dist/bundle/${name}`, packageFolder),
  ];
  return places.find((place) => place !== undefined && existsSync(place));
}

/** Why a thread has no module to run, and what to do about it. */
export const noWorkerModule =
  "the program's bundle lacks the modules that threads run; keep cowherd out of it ('Bundlers' in the README)";
