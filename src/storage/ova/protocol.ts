/**
 * Disks within an OVA, `ova:FILE#DISK`: a tar file with a description (OVF) and the disks it describes. A
 * disk is named by its file, or by its id in the description; one that is the only one need not be named.
 */
import { CowherdError, printable, cannotOpen } from '../../errors.js';
import { WindowFile } from '../filters/window.js';
import type { Protocol } from '../protocol.js';
import type { StorageFile } from '../storage.js';
import { type TarMember, tarMembers } from './tar.js';

/** Longest description that is read, in bytes. */
const maxDescriptionBytes = 4 * 1024 * 1024;

/** The protocol. */
export const ovaProtocol: Protocol = {
  name: 'ova',
  prefix: 'ova:',
  open: async (name, options, openFile) => {
    const [path, disk] = partsOf(name);
    const whole = await openFile(path, options);
    try {
      const { start, length } = await findDisk(name, whole, disk);
      return new WindowFile(whole, { protocol: 'ova', filename: name }, { start, length });
    } catch (error) {
      await whole.close().catch(() => undefined);
      throw error;
    }
  },
  async identify(name, identifyFile) {
    const [path, disk = ''] = partsOf(name);
    return `ova:${await identifyFile(path)}#${disk}`;
  },
};

/** The path of the OVA, and the disk that is named. */
function partsOf(name: string): [path: string, disk: string | undefined] {
  const rest = name.slice('ova:'.length);
  const at = rest.lastIndexOf('#');
  return at === -1 ? [rest, undefined] : [rest.slice(0, at), rest.slice(at + 1)];
}

async function findDisk(
  name: string,
  file: StorageFile,
  disk: string | undefined,
): Promise<TarMember> {
  const refuse = (why: string): CowherdError => {
    return cannotOpen('ERR_COWHERD_INVALID_IMAGE', name, why);
  };
  let members: readonly TarMember[];
  try {
    members = await tarMembers(file);
  } catch (error) {
    if (error instanceof CowherdError) throw error;
    throw refuse(`it is no OVA: ${(error as Error).message}`);
  }
  const described = await describedDisks(file, members);
  const disks = members.filter((member) => described.some((each) => each.file === member.name));
  if (disk === undefined) {
    if (disks.length === 1) return disks[0];
    const names = disks.map((each) => each.name);
    throw refuse(
      disks.length === 0
        ? 'it describes no disk; ova:FILE#DISK names one'
        : `it has several disks, ova:FILE#DISK names one: ${names.map(printable).join(', ')}`,
    );
  }
  const place = described.find(({ ids }) => ids.includes(disk))?.file ?? disk;
  const found = members.find((member) => member.name === place);
  if (found !== undefined) return found;
  throw refuse(`there is no disk '${printable(disk)}' in it`);
}

/** The disks that the description names: the file of each, and what else it is called. */
async function describedDisks(
  file: StorageFile,
  members: readonly TarMember[],
): Promise<readonly { readonly file: string; readonly ids: readonly string[] }[]> {
  const description = members.find(({ name }) => name.toLowerCase().endsWith('.ovf'));
  if (description === undefined || description.length > maxDescriptionBytes) return [];
  const bytes = new Uint8Array(description.length);
  await file.read(bytes, description.start);
  const text = Buffer.from(bytes).toString('utf8');
  const disks = elements(text, 'Disk');
  return elements(text, 'File').flatMap((attributes) => {
    const [href, id] = ['href', 'id'].map((name) => attributes.get(name));
    if (href === undefined || id === undefined) return [];
    const own = disks.filter((disk) => disk.get('fileRef') === id);
    const ids = own.map((disk) => disk.get('diskId')).filter((each) => each !== undefined);
    return own.length > 0 ? [{ file: href, ids: [id, ...ids] }] : [];
  });
}

/** The attributes of every element of a name in an OVF, without their prefixes. */
function elements(text: string, name: string): ReadonlyMap<string, string>[] {
  const found = text.matchAll(new RegExp(`<(?:\\w+:)?${name}\\b([^>]*)>`, 'g'));
  return [...found].map(([, attributes]) => {
    const pairs = attributes.matchAll(/(?:\w+:)?(\w+)\s*=\s*(?:"([^"]*)"|'([^']*)')/g);
    return new Map(
      [...pairs].map((pair) => {
        const [, key, inDouble, inSingle] = pair as readonly (string | undefined)[];
        return [key ?? '', inDouble ?? inSingle ?? ''] as const;
      }),
    );
  });
}
