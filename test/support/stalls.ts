/** What is told of waits that last. */
import assert from 'node:assert/strict';
import { once } from 'node:events';

/** Something that is waited for until it is let go. */
export class Hold {
  letGo: () => void = () => undefined;
  readonly gone = new Promise<undefined>((resolve) => {
    this.letGo = () => {
      resolve(undefined);
    };
  });
}

/**
 * The first warning from now on, which has to be of a stall.
 *
 * @param end lets go what is held, and waits for what waited
 */
export async function stallOf(end: () => Promise<unknown>): Promise<string> {
  // What waits here does not keep the process alive.
  const alive = setInterval(() => undefined, 1000);
  try {
    const [warning] = (await once(process, 'warning')) as [Error & { code?: string }];
    assert.equal(warning.code, 'COWHERD_STALLED');
    return warning.message;
  } finally {
    clearInterval(alive);
    await end();
  }
}
