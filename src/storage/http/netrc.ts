/** Users and passwords of hosts, as `.netrc` has them (curl(1), "netrc"; ftp(1), "THE .netrc FILE"). */
import { readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

/** A user and what proves it. */
export interface Login {
  readonly username: string;
  readonly password: string;
}

/** The login for a host: of the file that `NETRC` names, or of the home folder's. */
export async function loginFromNetrc(host: string): Promise<Login | undefined> {
  const file = process.env['NETRC'] ?? path.join(os.homedir(), '.netrc');
  const text = await readFile(file, 'utf8').catch(() => undefined);
  return text === undefined ? undefined : findLogin(text, host);
}

/** The login for a host in the text of such a file: of the host's entry, or else the default one. */
function findLogin(text: string, host: string): Login | undefined {
  const words = text.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? [];
  let isMeant = false;
  let username = '';
  let password: string | undefined;
  for (let at = 0; at < words.length; at++) {
    const word = words[at];
    if (word === 'machine' || word === 'default') {
      if (isMeant && password !== undefined) break;
      isMeant = word === 'default' || words[++at]?.toLowerCase() === host.toLowerCase();
      username = '';
      password = undefined;
    } else if (word === 'login' && isMeant) username = unquoted(words[++at] ?? '');
    else if (word === 'password' && isMeant) password = unquoted(words[++at] ?? '');
    else if (word === 'macdef') break;
  }
  return isMeant && password !== undefined ? { username, password } : undefined;
}

function unquoted(word: string): string {
  return word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/g, '$1') : word;
}
