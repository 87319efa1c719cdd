/** Malformed images, made from every fixture by a mutator that knows the fields of the format. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import { fixtures } from '../support/fixtures.js';
import { projectFolder } from '../support/tools.js';
import { corpusPath, likenessOf } from './corpus.js';
import type { Ground } from './ground.js';
import { JudgeThread } from './judge-thread.js';
import { type Mutant, mutate } from './mutation.js';
import { isOtherFormat, mutateOther } from './mutation-formats.js';
import type { Verdict } from './verdict.js';

/** @param only part of the names of the fixtures that are used */
export async function imageGround(only: string): Promise<Ground<Mutant, Verdict>> {
  const originals = await loadOriginals();
  const names = [...originals.keys()].filter((name) => name.includes(only));
  return {
    name: 'images',
    corpusPath,
    batchSize: 50,
    thread: new JudgeThread(new URL('worker.js', import.meta.url), originals),
    draw(random) {
      const name = random.pick(names);
      const change = isOtherFormat(name) ? mutateOther : mutate;
      return change(name, originals.get(name)!, random);
    },
    partsOf: ({ edits, cut }) => edits.length + (cut === undefined ? 0 : 1),
    without({ fixture, edits, cut }, part) {
      const isCut = part === edits.length;
      return {
        fixture,
        edits: edits.filter((_, index) => index !== part),
        ...(cut !== undefined && !isCut && { cut }),
      };
    },
    likenessOf,
    outcomeOf: ({ open }) => (open === 'ok' ? 'opened' : 'refused'),
  };
}

async function loadOriginals(): Promise<ReadonlyMap<string, Uint8Array>> {
  const loaded = new Map<string, Uint8Array>();
  for (const { file, stored, format } of fixtures) {
    if (format !== 'qcow2' && !isOtherFormat(file)) continue;
    const bytes = await readFile(path.join(projectFolder, 'fixtures', 'images', stored));
    const image = stored.endsWith('.gz') ? gunzipSync(bytes) : bytes;
    // Large ones only cost time: what is in them is in small ones too.
    if (image.length <= (isOtherFormat(file) ? 16 << 20 : 1 << 20)) loaded.set(file, image);
  }
  return loaded;
}
