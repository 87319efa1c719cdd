/** The commands about breakpoints: requests are stopped at events, where something hears of these. */
import { type EventBreakpoints, breakpointsOf } from '../../image/graph/shown-image.js';
import { IoFailure } from './failure.js';
import type { IoCommand } from './io-command.js';

/**
 * @param attempt what is said to have failed if it does
 * @param act does what the command is for @returns whether there was what it is about
 */
function breakpointCommand(
  { name, form, summary }: Pick<IoCommand, 'name' | 'form' | 'summary'>,
  attempt: (tag: string) => string,
  act: (breakpoints: EventBreakpoints, tag: string, event: string) => boolean | Promise<boolean>,
): IoCommand {
  const count = form.split(' ').length;
  return {
    ...{ name, form, summary, least: count, most: count },
    async run({ operands }, exerciser) {
      const tag = operands[count - 1];
      const breakpoints = breakpointsOf(exerciser.image);
      if (breakpoints === undefined) {
        throw new IoFailure(`${attempt(tag)}: Operation not supported`);
      }
      const told: Promise<void>[] = [];
      breakpoints.onChange = (what, which) => {
        told.push(exerciser.print(`blkdebug: ${what} request '${which}'\n`));
      };
      const isFound = await act(breakpoints, tag, operands[0]);
      await Promise.all(told);
      if (!isFound) throw new IoFailure(`${attempt(tag)}: No such file or directory`);
    },
  };
}

/** See the file's comment. */
export const breakpointCommands: readonly IoCommand[] = [
  breakpointCommand(
    {
      name: 'break',
      form: 'event tag',
      summary: 'sets a breakpoint on event and tags the stopped request as tag',
    },
    () => 'Could not set breakpoint',
    (breakpoints, tag, event) => breakpoints.set(event, tag),
  ),
  breakpointCommand(
    { name: 'remove_break', form: 'tag', summary: 'remove a breakpoint by tag' },
    (tag) => `Could not remove breakpoint ${tag}`,
    (breakpoints, tag) => breakpoints.remove(tag),
  ),
  breakpointCommand(
    { name: 'resume', form: 'tag', summary: 'resumes the request tagged as tag' },
    () => 'Could not resume request',
    (breakpoints, tag) => breakpoints.resume(tag),
  ),
  breakpointCommand(
    { name: 'wait_break', form: 'tag', summary: 'waits for the suspension of a request' },
    (tag) => `Could not wait for breakpoint ${tag}`,
    async (breakpoints, tag) => {
      await breakpoints.whenStopped(tag);
      return true;
    },
  ),
];
