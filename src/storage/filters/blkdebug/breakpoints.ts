/** Where requests of a thread are stopped. Breakpoints and what they stop have tags, which need not differ. */
import type { EventBreakpoints } from '../../storage.js';
import { events } from './events.js';

/** See the file's comment. */
export class Breakpoints implements EventBreakpoints {
  readonly #set: { readonly event: string; readonly tag: string }[] = [];
  readonly #stopped: { readonly tag: string; readonly resume: () => void }[] = [];
  readonly #waiting: { readonly tag: string; readonly tell: () => void }[] = [];
  onChange: ((what: 'Suspended' | 'Resuming', tag: string) => void) | undefined;

  set(event: string, tag: string): boolean {
    const isKnown = (events as readonly string[]).includes(event);
    if (isKnown) this.#set.push({ event, tag });
    return isKnown;
  }

  /** @returns when the event's request may go on; undefined where nothing stops it */
  hear(event: string): Promise<void> | undefined {
    // Nothing is held where nothing was asked for: most events come by here.
    if (this.#set.length === 0) return undefined;
    const met = this.#set.filter((each) => each.event === event);
    if (met.length === 0) return undefined;
    const stops = met.map((breakpoint) => {
      this.#set.splice(this.#set.indexOf(breakpoint), 1);
      return this.#stop(breakpoint.tag);
    });
    return Promise.all(stops).then(() => undefined);
  }

  resume(tag: string): boolean {
    const index = this.#stopped.findLastIndex((each) => each.tag === tag);
    if (index === -1) return false;
    const [stopped] = this.#stopped.splice(index, 1);
    this.onChange?.('Resuming', tag);
    stopped.resume();
    return true;
  }

  remove(tag: string): boolean {
    const kept = this.#set.filter((each) => each.tag !== tag);
    let isFound = kept.length < this.#set.length;
    this.#set.splice(0, Infinity, ...kept);
    while (this.resume(tag)) isFound = true;
    return isFound;
  }

  clear(): void {
    const tags = [...this.#set, ...this.#stopped].map(({ tag }) => tag);
    for (const tag of tags) this.remove(tag);
  }

  async whenStopped(tag: string): Promise<void> {
    if (this.#stopped.some((each) => each.tag === tag)) return;
    await new Promise<void>((tell) => {
      this.#waiting.push({ tag, tell });
    });
  }

  #stop(tag: string): Promise<void> {
    return new Promise((resume) => {
      this.#stopped.push({ tag, resume });
      this.onChange?.('Suspended', tag);
      const told = this.#waiting.filter((each) => each.tag === tag);
      for (const each of told) {
        this.#waiting.splice(this.#waiting.indexOf(each), 1);
        each.tell();
      }
    });
  }
}
