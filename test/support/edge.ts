/** Edges of images that tests put together by hand. */
import type { Node } from '../../src/engine/queues/node.js';
import { BackingEdge } from '../../src/image/graph/backing-edge.js';
import type { OpenedImage } from '../../src/image/graph/opened-image.js';
import type { SharedState } from '../../src/image/graph/shared-state.js';

/** An edge to an image that is there already, which nobody replaces by a name. */
export function edgeTo(
  node: Node,
  shared: SharedState,
  backing: OpenedImage | undefined,
): BackingEdge<OpenedImage> {
  node.replaceEdge(backing?.size ?? 0);
  return new BackingEdge(node, shared.edge, backing, node.edgeReplacements, () =>
    Promise.resolve(undefined),
  );
}
