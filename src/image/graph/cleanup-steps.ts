/** Steps that must all be taken, such as closing one file after the other, whatever fails. */

/** Takes every step, in turn. @throws what the first one threw that failed */
export async function eachStep(steps: readonly (() => Promise<void> | undefined)[]): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      failure ??= { error };
    }
  }
  if (failure !== undefined) throw failure.error;
}

/** Closes each of some files or images. @throws as `eachStep` does */
export function closeEach(
  opened: readonly ({ close(): Promise<void> } | undefined)[],
): Promise<void> {
  return eachStep(opened.map((each) => () => each?.close()));
}

/** Opens a queue over what lies below it, which is closed if that fails. */
export function openAbove<Queue>(
  below: { close(): Promise<void> } | undefined,
  open: () => Queue,
): Queue {
  try {
    return open();
  } catch (error) {
    void below?.close().catch(() => undefined);
    throw error;
  }
}
