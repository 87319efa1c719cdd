/** Objects that a command is given (`--object`), as QEMU's tools take them: credentials of TLS, secrets, no others. */
import { CliError } from '../process/cli-error.js';
import { parseOptionList } from './option-list.js';
import { type Secrets, readSecret } from './secrets.js';

/** Credentials of one side. */
export interface TlsObject {
  readonly endpoint: 'client' | 'server';
  /** The folder that they lie in. */
  readonly folder: string;
  /** Whose shared key is used. */
  readonly username: string | undefined;
}

/** What was given, by ids. */
export interface GivenObjects {
  readonly tls: ReadonlyMap<string, TlsObject>;
  readonly secrets: Secrets;
}

/** Nothing that was given. */
export const noObjects: GivenObjects = { tls: new Map(), secrets: {} };

type Take = (name: string) => string | undefined;
type Refuse = (message: string) => CliError;

const tlsKinds: readonly string[] = ['tls-creds-x509', 'tls-creds-psk'];
const secretKind = 'secret';
const typeName = 'qom-type';
/** What is taken of credentials, and changes nothing here: certificates are always looked at. */
const taken: readonly string[] = ['sanity-check', 'priority', 'verify-peer'];

/** @throws CliError with the exit code for what is no such object */
export function readObjects(given: readonly string[], exitCode = 1): GivenObjects {
  const refuse = (message: string): CliError => new CliError(message, { exitCode });
  const tls = new Map<string, TlsObject>();
  const secrets: Record<string, Uint8Array> = {};
  for (const text of given) {
    const values = valuesOf(text, refuse);
    const take = (name: string): string | undefined => {
      const value = values.get(name);
      values.delete(name);
      return value;
    };
    const kind = take(typeName) ?? '';
    if (kind !== secretKind && !tlsKinds.includes(kind)) {
      const known = 'but for secret and tls-creds-*';
      throw refuse(`User-creatable objects (--object) are not supported, ${known}`);
    }
    const id = take('id');
    if (id === undefined) throw refuse("Parameter 'id' is missing");
    if (tls.has(id) || Object.hasOwn(secrets, id)) {
      throw refuse(`attempt to add duplicate property '${id}' to object (type 'container')`);
    }
    if (kind === secretKind) {
      const secret = readSecret(take, secrets, refuse);
      const unknown = [...values.keys()].at(0);
      if (unknown !== undefined) throw refuse(`Parameter '${unknown}' is unexpected`);
      secrets[id] = secret;
    } else {
      const object = readTls(id, take, refuse);
      const unknown = [...values.keys()].at(0);
      if (unknown !== undefined) throw refuse(`Property '${kind}.${unknown}' not found`);
      tls.set(id, object);
    }
  }
  return { tls, secrets };
}

/** The properties of an object: a list whose first item may be the type alone, or JSON. */
function valuesOf(text: string, refuse: Refuse): Map<string, string> {
  if (text.startsWith('{')) {
    try {
      const members = Object.entries(JSON.parse(text) as object);
      return new Map(members.map(([name, value]) => [name, String(value)]));
    } catch {
      throw refuse(`Invalid JSON: ${text}`);
    }
  }
  const [kind, ...rest] = parseOptionList(text);
  const isNamed = text.startsWith(`${kind.name}=`);
  // A type may begin with `no`.
  const [type] = text.split(',');
  const first = isNamed ? kind : { name: typeName, value: type };
  return new Map([first, ...rest].map(({ name, value }) => [name, value]));
}

function readTls(id: string, take: Take, refuse: Refuse): TlsObject {
  const [folder, username] = [take('dir'), take('username')];
  const endpoint = take('endpoint') ?? 'client';
  for (const name of taken) take(name);
  if (folder === undefined) throw refuse(`The object '${id}' names no folder (dir=FOLDER)`);
  if (endpoint !== 'client' && endpoint !== 'server') {
    throw refuse(`Parameter 'endpoint' does not accept value '${endpoint}'`);
  }
  return { endpoint, folder, username };
}

/**
 * The credentials that a name means: those of an object, or else those of a folder.
 *
 * @throws CliError for an object of the other side
 */
export function credentialsNamed(
  name: string,
  { tls }: GivenObjects,
  endpoint: TlsObject['endpoint'],
): Pick<TlsObject, 'folder' | 'username'> {
  const found = tls.get(name);
  if (found === undefined) return { folder: name, username: undefined };
  if (found.endpoint === endpoint) return found;
  throw new CliError(`Expecting TLS credentials with a ${endpoint} endpoint`);
}
