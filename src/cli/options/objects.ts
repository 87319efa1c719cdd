/** Objects that a command is given (`--object`), as QEMU's tools take them: credentials of TLS, and no others. */
import { CliError } from '../process/cli-error.js';
import { parseOptionList } from './option-list.js';

/** Credentials of one side. */
export interface TlsObject {
  readonly endpoint: 'client' | 'server';
  /** The folder that they lie in. */
  readonly folder: string;
  /** Whose shared key is used. */
  readonly username: string | undefined;
}

/** By their ids. */
export type TlsObjects = ReadonlyMap<string, TlsObject>;

const kinds: readonly string[] = ['tls-creds-x509', 'tls-creds-psk'];
/** What is taken, and changes nothing here: certificates are always looked at. */
const taken: readonly string[] = ['qom-type', 'sanity-check', 'priority', 'verify-peer'];

/** @throws CliError with the exit code for what is no such object */
export function readObjects(given: readonly string[], exitCode = 1): TlsObjects {
  const refuse = (message: string): CliError => new CliError(message, { exitCode });
  const objects = new Map<string, TlsObject>();
  for (const text of given) {
    const [kind, ...rest] = text.split(',');
    if (!kinds.includes(kind.replace(/^qom-type=/, ''))) {
      throw refuse('User-creatable objects (--object) are not supported, but for tls-creds-*');
    }
    const values = new Map(parseOptionList(rest.join(',')).map((item) => [item.name, item.value]));
    const take = (name: string): string | undefined => {
      const value = values.get(name);
      values.delete(name);
      return value;
    };
    const [id, folder, username] = [take('id'), take('dir'), take('username')];
    const endpoint = take('endpoint') ?? 'client';
    for (const name of taken) take(name);
    const unknown = [...values.keys()].at(0);
    if (unknown !== undefined) throw refuse(`Property '${kind}.${unknown}' not found`);
    if (id === undefined) throw refuse("Parameter 'id' is missing");
    if (folder === undefined) throw refuse(`The object '${id}' names no folder (dir=FOLDER)`);
    if (endpoint !== 'client' && endpoint !== 'server') {
      throw refuse(`Parameter 'endpoint' does not accept value '${endpoint}'`);
    }
    objects.set(id, { endpoint, folder, username });
  }
  return objects;
}

/**
 * The credentials that a name means: those of an object, or else those of a folder.
 *
 * @throws CliError for an object of the other side
 */
export function credentialsNamed(
  name: string,
  objects: TlsObjects,
  endpoint: TlsObject['endpoint'],
): Pick<TlsObject, 'folder' | 'username'> {
  const found = objects.get(name);
  if (found === undefined) return { folder: name, username: undefined };
  if (found.endpoint === endpoint) return found;
  throw new CliError(`Expecting TLS credentials with a ${endpoint} endpoint`);
}
