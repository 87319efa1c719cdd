/** `cowherd info`: the facts about an image, and about those below it. */
import path from 'node:path';
import type { OpenImageOptions } from '../../image/api/options.js';
import type { ImageInfo } from '../../image/api/reports.js';
import { CliError, usageError } from '../process/cli-error.js';
import type { Command } from './command.js';
import type { ImageName } from '../options/image-name.js';
import { parseImageName } from '../options/image-name.js';
import { infoText } from '../text/info-human.js';
import { infoJson } from '../text/info-json.js';
import { openNamed } from './open.js';
import { readObjects } from '../options/objects.js';
import type { OptionSpecs } from '../options/options.js';
import { parseCommandLine } from '../options/options.js';
import { formatQemuJson } from '../text/qemu-json.js';
import * as shared from '../options/shared-options.js';

const options = {
  ...shared.helpOption,
  ...shared.formatOption,
  ...shared.readerOptions,
  ...shared.outputOption,
  backingChain: {
    short: 'b',
    long: 'backing-chain',
    help: 'show the images below it in the chain as well',
  },
} as const satisfies OptionSpecs<string>;

/** The command. */
export const infoCommand: Command = {
  name: 'info',
  summary: 'Show facts about an image',
  operands: 'IMAGE',
  options,
  async run(words, session) {
    const line = parseCommandLine('info', options, words);
    const json = shared.wantsJson('info', line.last('output'));
    if (line.operands.length !== 1) throw usageError('info', 'Expecting one image file name');
    const objects = readObjects(line.all('object'));
    const name = parseImageName(line.operands[0], {
      format: line.last('format'),
      objects,
      imageOpts: line.has('imageOpts'),
      isAlone: true,
    });
    const opening: OpenImageOptions = {
      signal: session.signal,
      readOnly: true,
      forInfo: true,
      backing: 'ignore',
      forceShare: line.has('forceShare'),
      untrusted: line.has('untrusted'),
      aio: shared.parseAio(line.last('aio')),
    };
    const chain = line.has('backingChain');
    const infos = await collectInfos(name, opening, chain);
    for (const { warnings = [] } of infos) for (const each of warnings) session.warn(each);
    if (json) {
      const values = infos.map(infoJson);
      await session.print(`${formatQemuJson(chain ? values : values[0])}\n`);
    } else {
      await session.print(infos.map(infoText).join('\n'));
    }
    return 0;
  },
};

/** The facts about an image and, for a chain, about each image below it. */
async function collectInfos(
  first: ImageName,
  opening: OpenImageOptions,
  chain: boolean,
): Promise<readonly ImageInfo[]> {
  const infos: ImageInfo[] = [];
  const seen = new Set<string>();
  let name: ImageName | undefined = first;
  while (name !== undefined) {
    const info = await infoOf(name, opening);
    const place = path.resolve(name.path);
    if (seen.has(place)) {
      throw new CliError(`Backing file '${name.path}' creates an infinite loop.`);
    }
    seen.add(place);
    infos.push(info);
    name = chain ? backingName(info) : undefined;
    if (name !== undefined && opening.untrusted === true) {
      throw new CliError(`'${info.filename}' is untrusted, and its backing file is not opened`);
    }
  }
  return infos;
}

async function infoOf(name: ImageName, opening: OpenImageOptions): Promise<ImageInfo> {
  await using image = await openNamed(name, opening);
  return await image.info();
}

function backingName({ fullBackingFilename, backingFormat }: ImageInfo): ImageName | undefined {
  if (fullBackingFilename === undefined) return undefined;
  return parseImageName(fullBackingFilename, { format: backingFormat });
}
