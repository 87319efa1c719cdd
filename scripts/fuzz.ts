/**
 * Opens, reads and checks malformed images, made from every fixture by a mutator that knows the
 * fields of the format, for as long as wanted:
 *
 *     npm run fuzz -- [--minutes N] [--seed S] [--grow] [--only TEXT]
 *
 * Each must end with an error or with data: never with a crash, a hang or a read without bound.
 * With `--only` those are made of fixtures whose name contains the text. With `--grow` cases whose like the corpus does not have yet are minimised and added to it.
 */
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { fixtures } from '../test/support/fixtures.js';
import { projectFolder } from '../test/support/tools.js';
import { type CorpusCase, corpusPath, likenessOf, readCorpus } from '../test/fuzz/corpus.js';
import { type Mutant, mutate } from '../test/fuzz/mutation.js';
import { isOtherFormat, mutateOther } from '../test/fuzz/mutation-formats.js';
import { Random } from '../test/stress/random.js';
import type { Judgement } from '../test/fuzz/worker.js';
import { readArguments } from './arguments.js';

const values = readArguments('Opens, reads and checks malformed images.', {
  minutes: { type: 'string', default: '1' },
  seed: { type: 'string' },
  grow: { type: 'boolean', default: false },
  only: { type: 'string', default: '' },
});
const batchSize = 50;
const hangMs = 60_000;
const seed = Number(values.seed ?? Date.now() % 1_000_000_007);
const random = new Random(seed);
const originals = await loadOriginals();
const names = [...originals.keys()].filter((name) => name.includes(values.only));
const corpus = await readCorpus();
const known = new Map<string, number>();
for (const each of corpus) known.set(likenessOf(each), (known.get(likenessOf(each)) ?? 0) + 1);

let worker = startWorker();
let executions = 0;
const opened = { ok: 0, refused: 0 };
const failures: string[] = [];
const end = Date.now() + Number(values.minutes) * 60_000;
while (Date.now() < end && failures.length < 10) {
  const mutants = Array.from({ length: batchSize }, () => {
    const name = random.pick(names);
    const change = isOtherFormat(name) ? mutateOther : mutate;
    return change(name, originals.get(name)!, random);
  });
  const judgements = await judgeAll(mutants);
  for (const [index, { verdict, failure }] of judgements.entries()) {
    executions++;
    if (failure !== undefined) failures.push(`${JSON.stringify(mutants[index])}\n${failure}`);
    else if (verdict?.open === 'ok') opened.ok++;
    else opened.refused++;
    if (values.grow && verdict !== undefined) await grow({ ...mutants[index], verdict });
  }
}
await worker.terminate();
if (values.grow) {
  const lines = corpus.map((each) => `  ${JSON.stringify(each)}`);
  await writeFile(corpusPath, `[\n${lines.join(',\n')}\n]\n`);
  console.log(`the corpus has ${corpus.length} cases`);
}
console.log(`seed ${seed}: ${executions} images, ${opened.ok} opened, ${opened.refused} refused`);
console.log(`failures: ${failures.length === 0 ? 'none' : failures.length}`);
if (failures.length > 0) {
  const folder = await mkdtemp(path.join(tmpdir(), 'cowherd-fuzz-'));
  await writeFile(path.join(folder, 'failures.txt'), failures.join('\n\n'));
  console.error(`they are described in ${path.join(folder, 'failures.txt')}`);
  process.exit(1);
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

function startWorker(): Worker {
  return new Worker(new URL('../test/fuzz/worker.js', import.meta.url), {
    workerData: originals,
    resourceLimits: { maxOldGenerationSizeMb: 512 },
  });
}

/** Judges a batch; of one that hangs or crashes, each alone. */
async function judgeAll(mutants: readonly Mutant[]): Promise<readonly Judgement[]> {
  const answer = await ask(mutants);
  if (typeof answer !== 'string') return answer;
  if (mutants.length === 1) return [{ failure: answer }];
  const judgements: Judgement[] = [];
  for (const mutant of mutants) judgements.push(...(await judgeAll([mutant])));
  return judgements;
}

/** @returns the judgements, or why there are none */
async function ask(mutants: readonly Mutant[]): Promise<readonly Judgement[] | string> {
  const asked = worker;
  const answer = await new Promise<readonly Judgement[] | string>((resolve) => {
    const finish = (result: readonly Judgement[] | string): void => {
      clearTimeout(timer);
      asked.off('message', finish);
      asked.off('error', crashed);
      resolve(result);
    };
    const crashed = (error: Error): void => {
      finish(`it crashed: ${error.stack ?? error.message}`);
    };
    const timer = setTimeout(() => {
      finish('it hangs');
    }, hangMs);
    asked.on('message', finish);
    asked.on('error', crashed);
    asked.postMessage(mutants);
  });
  if (typeof answer === 'string') {
    await worker.terminate();
    worker = startWorker();
  }
  return answer;
}

/** Adds a case to the corpus if it has few like it, with no edit that makes no difference. */
async function grow(found: CorpusCase): Promise<void> {
  const likeness = likenessOf(found);
  if ((known.get(likeness) ?? 0) >= 3) return;
  let least = found;
  for (const edit of found.edits) {
    const mutant: Mutant = { ...least, edits: least.edits.filter((each) => each !== edit) };
    const [{ verdict }] = await judgeAll([mutant]);
    if (verdict !== undefined && JSON.stringify(verdict) === JSON.stringify(found.verdict)) {
      least = { ...mutant, verdict };
    }
  }
  if (least.edits.length === 0 && least.cut === undefined) return;
  known.set(likeness, (known.get(likeness) ?? 0) + 1);
  corpus.push(least);
}
