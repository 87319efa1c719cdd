/** Work on many things side by side whose results are handed out in the order of the things. */
import { TurnOfOthers } from '../../turn-of-others.js';

/**
 * Does work on each item, so many at a time, and hands out the results in order. The next work begins when
 * the consumer asks for the next result; a failure is met when its turn comes. Nothing is under way any
 * more when this ends, however it does.
 *
 * @param parallel at least 1
 */
export async function* inOrder<Item, Result>(
  items: Iterable<Item> | AsyncIterable<Item>,
  parallel: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<Result> {
  const source =
    Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  const begun: Promise<Result>[] = [];
  const others = new TurnOfOthers();
  let hasMore = true;
  try {
    for (;;) {
      while (hasMore && begun.length < parallel) {
        const next = await source.next();
        if (next.done === true) {
          hasMore = false;
          break;
        }
        const result = work(next.value);
        // Until its turn comes a failure must not end the program.
        result.catch(() => undefined);
        begun.push(result);
      }
      if (begun.length === 0) return;
      if (others.due) await others.take();
      const first = await begun[0];
      void begun.shift();
      yield first;
    }
  } finally {
    await Promise.allSettled(begun);
    if (hasMore) await source.return?.();
  }
}
