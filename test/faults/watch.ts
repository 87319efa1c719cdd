/** What no failure may cause: a wait without end, and a rejection that nobody handles. */
import { setImmediate as turn } from 'node:timers/promises';

/** Milliseconds after which a step counts as hung; a step takes a few. */
const longestMs = 20_000;

/** The settled result of a step. @throws if it has not ended in time */
export async function within<Result>(
  step: string,
  work: Promise<Result>,
): Promise<PromiseSettledResult<Result>> {
  let timer: NodeJS.Timeout | undefined;
  const hung = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`${step} has not ended after ${longestMs} ms`));
    }, longestMs);
  });
  try {
    const settled = Promise.allSettled([work]);
    const [result] = await Promise.race([settled, hung]);
    return result;
  } finally {
    clearTimeout(timer);
  }
}

/** Runs something. @returns its result and the reasons of rejections that nobody handled meanwhile */
export async function noUnhandled<Result>(
  work: () => Promise<Result>,
): Promise<{ readonly result: Result; readonly unhandled: readonly unknown[] }> {
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => {
    unhandled.push(reason);
  };
  process.on('unhandledRejection', note);
  process.on('uncaughtException', note);
  try {
    const result = await work();
    // Node tells of them after the microtasks of a turn.
    await turn();
    await turn();
    return { result, unhandled };
  } finally {
    process.off('unhandledRejection', note);
    process.off('uncaughtException', note);
  }
}
