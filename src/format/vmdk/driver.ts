/** VMDK images of VMware, in one file or spread over several. */
import type { FormatDriver, ImageFiles } from '../driver.js';
import { mappedDriver } from '../mapped/mapped-image.js';
import type { VmdkLayout } from './layout.js';
import { checkVmdk } from './check.js';
import { vmdkCreation } from './create.js';
import { growingVmdk } from './growing.js';
import { VmdkMapping } from './mapping.js';
import { readLayout } from './open.js';
import { streamVmdk } from './stream-reader.js';

/** What `info` reports of an extent. */
interface VmdkExtentFacts {
  /** Only where it is. */
  readonly compressed: true | undefined;
  /** Bytes. */
  readonly virtualSize: number;
  readonly filename: string;
  /** Bytes of a grain. */
  readonly clusterSize: number | undefined;
  /** As the descriptor calls it; empty where no descriptor does. */
  readonly format: string;
}

/** What `info` reports of VMDK images alone. */
export interface VmdkFacts {
  readonly type: 'vmdk';
  readonly cid: number;
  readonly parentCid: number;
  readonly createType: string;
  readonly extents: readonly VmdkExtentFacts[];
}

/** The driver. */
export const vmdkDriver: FormatDriver = mappedDriver<VmdkLayout>({
  name: 'vmdk',
  hasBacking: true,
  readLayout,
  mapping: (layout, files) => new VmdkMapping(layout, files),
  growing: growingVmdk,
  stream: streamVmdk,
  creation: vmdkCreation,
  check: checkVmdk,
  facts: (layout, files) => ({ specific: factsOf(layout, files) }),
});

function factsOf(
  { cid, parentCid, createType, extents }: VmdkLayout,
  files: ImageFiles,
): VmdkFacts {
  const facts: VmdkExtentFacts[] = [];
  for (const extent of extents) {
    // Nothing to tell of: it lies nowhere.
    if (extent.kind === 'zero') continue;
    const isCompressed = extent.kind === 'sparse' && extent.compression !== 'none';
    facts.push({
      compressed: isCompressed ? true : undefined,
      virtualSize: extent.length,
      filename: files[extent.file].filename,
      clusterSize: extent.kind === 'flat' ? undefined : extent.grainBytes,
      format: extent.type,
    });
  }
  return { type: 'vmdk', cid, parentCid, createType, extents: facts };
}
