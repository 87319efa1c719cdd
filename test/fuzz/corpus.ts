/** The corpora: cases with the verdict each must get. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { projectFolder } from '../support/tools.js';
import type { Mutant } from './mutation.js';
import type { Verdict } from './verdict.js';

/** A malformed image and what must become of it. */
export interface CorpusCase extends Mutant {
  readonly verdict: Verdict;
}

/** The file of the malformed images. */
export const corpusPath = path.join(projectFolder, 'test', 'fuzz', 'corpus.json');

/** All cases of a file; none if there is no such file yet. */
export async function readCorpus<Case>(file: string): Promise<Case[]> {
  const text = await readFile(file, 'utf8').catch(() => '[]');
  return JSON.parse(text) as Case[];
}

/** What cases must share to be of one kind: the fixture and the verdict. */
export function likenessOf({ fixture, verdict }: CorpusCase): string {
  return `${fixture} ${verdict.open} ${verdict.read} ${verdict.check}`;
}
