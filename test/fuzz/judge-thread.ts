/** Judging on a thread of its own, which a hang or a crash takes along without taking the fuzzer. */
import { Worker, isMainThread, parentPort } from 'node:worker_threads';

/** What becomes of a case. */
export interface Judgement<Verdict> {
  readonly verdict?: Verdict;
  /** What must not have happened. */
  readonly failure?: string;
}

/** Milliseconds after which a batch counts as hanging. */
const hangMs = 60_000;
/** Said to a thread that has to end; it answers once it has. */
const farewell = 'end';

/** The fuzzer's side of the thread. */
export class JudgeThread<Case, Verdict> {
  readonly #script: URL;
  readonly #data: unknown;
  #worker: Worker | undefined;

  /**
   * @param script a module that calls `judgeCases`
   * @param data the thread's `workerData`
   */
  constructor(script: URL, data: unknown) {
    this.#script = script;
    this.#data = data;
  }

  /** Judges a batch; of one that hangs or crashes, each alone. */
  async judgeAll(cases: readonly Case[]): Promise<readonly Judgement<Verdict>[]> {
    const answer = await this.#ask(cases);
    if (typeof answer !== 'string') return answer;
    if (cases.length === 1) return [{ failure: answer }];
    const judgements: Judgement<Verdict>[] = [];
    for (const each of cases) judgements.push(...(await this.judgeAll([each])));
    return judgements;
  }

  /** Ends the thread. @returns what is wrong with what it leaves */
  async end(): Promise<string | undefined> {
    const worker = this.#worker;
    if (worker === undefined) return undefined;
    const answer = await this.#ask(farewell);
    await worker.terminate();
    this.#worker = undefined;
    return typeof answer === 'string' ? answer : answer[0]?.failure;
  }

  /** @returns the judgements, or why there are none */
  async #ask(
    cases: readonly Case[] | typeof farewell,
  ): Promise<readonly Judgement<Verdict>[] | string> {
    const asked = (this.#worker ??= new Worker(this.#script, {
      workerData: this.#data,
      resourceLimits: { maxOldGenerationSizeMb: 512 },
    }));
    const answer = await new Promise<readonly Judgement<Verdict>[] | string>((resolve) => {
      const finish = (result: readonly Judgement<Verdict>[] | string): void => {
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
      asked.postMessage(cases);
    });
    if (typeof answer === 'string') {
      await asked.terminate();
      this.#worker = undefined;
    }
    return answer;
  }
}

/**
 * The thread's side: answers batch after batch.
 *
 * @param judge @throws what must not happen
 * @param end what is to be done in the end, if anything
 */
export function judgeCases(
  judge: (each: never) => Promise<unknown>,
  end: () => Promise<void> = () => Promise.resolve(),
): void {
  if (isMainThread || parentPort === null) return;
  const port = parentPort;
  port.on('message', (cases: readonly never[] | typeof farewell) => {
    void (async () => {
      const judgements: Judgement<unknown>[] = [];
      if (cases === farewell) {
        const { failure } = await judged(end);
        judgements.push(failure === undefined ? {} : { failure });
      } else for (const each of cases) judgements.push(await judged(() => judge(each)));
      port.postMessage(judgements);
    })();
  });
}

async function judged<Result>(judge: () => Promise<Result>): Promise<Judgement<Result>> {
  try {
    return { verdict: await judge() };
  } catch (error) {
    return { failure: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}
