/** Every malformed image of the corpus gets the verdict it must get. `npm run fuzz` makes new ones. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { fixture } from '../support/fixtures.js';
import { projectFolder } from '../support/tools.js';
import { type CorpusCase, corpusPath, readCorpus } from './corpus.js';
import { applyMutant } from './mutation.js';
import { judgeImage } from './verdict.js';

test('the corpus', async (t) => {
  const corpus = await readCorpus<CorpusCase>(corpusPath);
  assert.ok(corpus.length >= 500, `${corpus.length} cases`);
  const originals = new Map<string, Uint8Array>();
  for (const { verdict, ...mutant } of corpus) {
    let original = originals.get(mutant.fixture);
    if (original === undefined) {
      const { stored } = fixture(mutant.fixture);
      const bytes = await readFile(path.join(projectFolder, 'fixtures', 'images', stored));
      original = stored.endsWith('.gz') ? gunzipSync(bytes) : bytes;
      originals.set(mutant.fixture, original);
    }
    const found = await judgeImage(applyMutant(original, mutant));
    assert.deepEqual(found, verdict, JSON.stringify(mutant));
    // What an image says is never the caller's mistake.
    assert.doesNotMatch(JSON.stringify(found), /OUT_OF_RANGE|INVALID_ARGUMENT/);
  }
  t.diagnostic(`${corpus.length} malformed images`);
});
