/** A thread of the fuzzer, which a hang or a crash takes along without taking the fuzzer. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { applyMutant, type Mutant } from './mutation.js';
import { judgeImage, type Verdict } from './verdict.js';

/** What a thread answers to a mutant. */
export interface Judgement {
  readonly verdict?: Verdict;
  /** What must not have happened. */
  readonly failure?: string;
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const originals = workerData as ReadonlyMap<string, Uint8Array>;
  port.on('message', (mutants: readonly Mutant[]) => {
    void (async () => {
      const judgements: Judgement[] = [];
      for (const mutant of mutants) judgements.push(await judge(originals, mutant));
      port.postMessage(judgements);
    })();
  });
}

async function judge(
  originals: ReadonlyMap<string, Uint8Array>,
  mutant: Mutant,
): Promise<Judgement> {
  try {
    return { verdict: await judgeImage(applyMutant(originals.get(mutant.fixture)!, mutant)) };
  } catch (error) {
    return { failure: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}
