/** Numbers of UDIF images. */

/** A number of 64 bits; beyond 2^53 it is about right, which is enough to refuse it. */
export function uint64(view: DataView, at: number): number {
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
}
