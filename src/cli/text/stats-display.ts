/** What the queues of images that are served do: a table for people, lines of JSON for who asks. */
import type { Image } from '../../image/api/image.js';
import type { Session } from '../process/session.js';
import { statsTable } from './stats-table.js';

/** Milliseconds between two tables at a terminal. */
const redrawMs = 1000;

/** An image, by the name that it was given. */
export interface NamedImage {
  readonly given: string;
  readonly image: Image;
}

/**
 * Answers SIGUSR1 with a line of JSON for each image on standard error; and draws their tables at a terminal
 * once a second, if that is wanted.
 *
 * @returns what ends it, and prints the tables once more
 */
export function displayStats(
  session: Session,
  images: readonly NamedImage[],
  isWanted: boolean,
): () => Promise<void> {
  session.onStatusAsked = () => {
    for (const { given, image } of images) {
      session.complain(`${JSON.stringify({ image: given, ...image.stats() })}\n`);
    }
  };
  const tables = (): string =>
    images.map(({ given, image }) => statsTable(`Queues of '${given}':`, image.stats())).join('');
  let drawn = '';
  const draw = (): void => {
    const lines = drawn.split('\n').length - 1;
    const back = lines > 0 ? `\x1b[${lines}A\x1b[J` : '';
    drawn = tables();
    void session.print(back + drawn).catch(() => undefined);
  };
  const isLive = isWanted && session.stdout.isTTY === true;
  const timer = isLive ? setInterval(draw, redrawMs) : undefined;
  return async () => {
    clearInterval(timer);
    session.onStatusAsked = undefined;
    if (isLive) draw();
    else if (isWanted) await session.print(tables());
  };
}
