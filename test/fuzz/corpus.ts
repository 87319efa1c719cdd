/** The corpus of malformed images, each with the verdict it must get. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { projectFolder } from '../support/tools.js';
import type { Mutant } from './mutation.js';
import type { Verdict } from './verdict.js';

/** A malformed image and what must become of it. */
export interface CorpusCase extends Mutant {
  readonly verdict: Verdict;
}

/** The file of the corpus. */
export const corpusPath = path.join(projectFolder, 'test', 'fuzz', 'corpus.json');

/** All cases; none if there is no corpus yet. */
export async function readCorpus(): Promise<CorpusCase[]> {
  const text = await readFile(corpusPath, 'utf8').catch(() => '[]');
  return JSON.parse(text) as CorpusCase[];
}

/** What cases must share to be of one kind: the fixture and the verdict. */
export function likenessOf({ fixture, verdict }: CorpusCase): string {
  return `${fixture} ${verdict.open} ${verdict.read} ${verdict.check}`;
}
